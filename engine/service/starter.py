"""Starts engines side by side: all is made ready while the journal is written, executed after."""

import asyncio
import errno
import threading
import uuid
from dataclasses import replace
from functools import partial
from pathlib import Path

from engine.core.cpuset import CpuSet
from engine.core.errors import LaunchError
from engine.host.machine import read_machine
from engine.host.ports import listening_ports
from engine.host.root import HostRoot
from engine.service.journal import Running
from engine.service.launcher import Launched, Launcher, LaunchOrder, Relief, Start
from engine.service.ledger import Ledger
from engine.service.limiting import limiting_of
from engine.service.managed import Managed
from engine.service.neighbours import listener_on
from engine.service.orders import Surroundings, order_of
from engine.service.processes import exit_record, shims
from engine.service.survey import Survey
from engine.service.talk import ANSWER_WITHIN_S

_EXPECTED_FOR_S = 30.0


class Starter:
    """The supervisor's hand for it, on its event loop."""

    def __init__(self, root: HostRoot, around: Surroundings, ledger: Ledger, state: Path) -> None:
        self._root, self._around, self._ledger, self._state = root, around, ledger, state
        self._machine = Survey(partial(read_machine, root))
        self._listening = Survey(partial(listening_ports, root))
        self._launcher = Launcher()
        self._dismissing: asyncio.TimerHandle | None = None
        threading.Thread(target=self._launcher.expect, args=(0,), daemon=True).start()

    def close(self) -> None:
        """Engines stay as they are."""
        if self._dismissing is not None:
            self._dismissing.cancel()
        self._launcher.close()

    def expect(self, starts: int) -> None:
        """So many may be asked for in a moment: what takes time can be done before."""
        if starts:
            threading.Thread(target=self._launcher.expect, args=(starts,), daemon=True).start()
            loop = asyncio.get_running_loop()
            if self._dismissing is not None:
                self._dismissing.cancel()
            self._dismissing = loop.call_later(_EXPECTED_FOR_S, self._launcher.dismiss)

    async def start(self, managed: Managed) -> Launched:
        """Start an engine where its instance is placed, with a mark of its own.

        Raises ControlError with nothing left behind.
        """
        wish, placement = managed.wish, managed.placement
        managed.mark = uuid.uuid4().hex
        limiting = limiting_of(self._root, wish, managed.mark)
        managed.running = Running(wish, placement, limits=limiting.folders)
        self._ledger.save()
        clear = asyncio.get_running_loop().create_task(self._clear(managed))
        clear.add_done_callback(lambda it: it.cancelled() or it.exception())
        try:
            command, managed.command = managed.command, None
            if command is None:
                machine = await self._machine.now()
                command = order_of(
                    wish, placement, machine, self._around, base=managed.base
                ).command
            order = LaunchOrder.of(
                wish, placement, command, managed.folder, managed.mark, limiting
            )
            return await self._launched(order, clear)
        finally:
            clear.cancel()

    async def _launched(self, order: LaunchOrder, clear: "asyncio.Task[None]") -> Launched:
        try:
            with self._launcher.begin(order) as start:
                await _heard(start)
                start.bound()
                await clear
                start.go()
                await _heard(start)
                return start.launched()
        except (OSError, LaunchError) as error:
            why = await asyncio.to_thread(self._launcher.undone, order, error)
            await clear  # what it may not do says more than what came of it
            raise why from None

    async def _clear(self, managed: Managed) -> None:
        """Return when its port is free and the journal knows of it. Raises LaunchError."""
        port = managed.placement.port
        if port in await self._listening.now():
            holder = await asyncio.to_thread(listener_on, self._root, port)
            raise LaunchError(
                what=f"Instance {managed.name} was not started",
                why=f"{holder or 'another program'} listens on its port {port}",
                do="Stop that, or give the instance another port",
            )
        if not await self._ledger.saved():
            raise LaunchError(
                what=f"Instance {managed.name} was not started",
                why="the journal cannot be written, so the engine could be lost",
                do=f"Free some disk space for {self._state} and start it again",
            )

    async def relieve(self, managed: Managed, launched: Launched) -> Launched:
        """Put another shim to an engine whose own has died. Raises OSError where it cannot be."""
        folder, mark, pus = managed.folder, managed.mark, managed.at.placement.pus
        return await asyncio.to_thread(self._relieved, folder, mark, pus, launched)

    def _relieved(self, folder: Path, mark: str, pus: CpuSet, launched: Launched) -> Launched:
        found = list(shims(self._root, mark).items())
        if not found:  # else an earlier service has done it, and died before it was in the journal
            record = exit_record(folder, mark)
            pipe, log = record.get("pipe"), record.get("log")
            if not isinstance(pipe, int) or not isinstance(log, int):
                raise OSError(errno.ENOENT, "there is no record of its output")
            relief = Relief(folder, mark, pus, launched.pid, launched.started_ticks, pipe, log)
            found = [self._launcher.relieve(relief)]
        shim_pid, shim_ticks = found[0]
        return replace(launched, shim_pid=shim_pid, shim_ticks=shim_ticks)


async def _heard(start: Start) -> None:
    """Return when its shim has said something. Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    heard = asyncio.Event()
    loop.add_reader(start, heard.set)
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await heard.wait()
    finally:
        loop.remove_reader(start)
