"""The service: control socket, ticking, sampling, and its end when nobody needs it."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

import msgspec

from engine import __version__
from engine.control import AnswerEnd, AnswerPiece, ApplyLayout, Change
from engine.core.errors import ControlError
from engine.core.lifecycle import Policy, Silent
from engine.core.status import MOST_STRANGERS, InstanceStatus, Snapshot
from engine.core.strangers import Stranger
from engine.core.topology import Machine
from engine.host.machine import read_machine
from engine.host.paths import Paths
from engine.host.root import HostRoot
from engine.service.adoption import adopt
from engine.service.answers import answer
from engine.service.catalogue import catalogue
from engine.service.commands import command_line
from engine.service.connection import (
    SLOW_CLIENT_S,
    ClientGone,
    Gone,
    Outbox,
    converse,
    refuse_strangers,
)
from engine.service.door import Door
from engine.service.loads import Loads
from engine.service.logs import read_log
from engine.service.managed import known
from engine.service.moving import verify_named
from engine.service.neighbours import strangers_on
from engine.service.offers import Offers
from engine.service.orders import Surroundings
from engine.service.past import Past
from engine.service.sampler import Sample, Sampler
from engine.service.snapshots import snapshot, subjects
from engine.service.supervisor import Supervisor
from engine.wire import HOME, LIMIT_BYTES, Done, Request

TICK_S = 0.25
QUIET_TICK_S = 1.0
"""While nothing starts, stops or waits to start again."""
WATCHED_EVERY_S = 1.0
UNWATCHED_EVERY_S = 5.0
STRANGERS_EVERY_S = 30.0
"""Only while somebody watches: all of /proc is read for it."""
IDLE_EXIT_S = 60.0
CONNECTIONS = 64
"""Enough for anybody, and far from the limit of open files."""


class Service:
    """One per user; engines outlive it."""

    def __init__(
        self,
        paths: Paths,
        environment: Mapping[str, str],
        *,
        idle_exit_s: float = IDLE_EXIT_S,
        slow_client_s: float = SLOW_CLIENT_S,
        patience: Policy | None = None,
        root: HostRoot | None = None,
    ) -> None:
        self._door = Door(paths, self._serve)
        self._idle_exit_s, self._slow_client_s = idle_exit_s, slow_client_s
        around = Surroundings(environment, paths.models)
        self._supervisor = Supervisor(paths, around, root=root, patience=patience)
        self._loads = Loads(environment, paths.state / "load.log")
        self._sampler = Sampler(self._supervisor.root)
        self._machine = read_machine(self._supervisor.root)
        self._revision = self._machine.revision
        self._offers = Offers(self._supervisor, self._loads, self._instances)
        self._snapshot: Snapshot | None = None
        self._sample = Sample((), (), {})
        self._past = Past()
        self._strangers: tuple[Stranger, ...] = ()
        self._strangers_at = -STRANGERS_EVERY_S
        self._arrived = asyncio.Condition()
        self._watchers = 0
        self._connections = 0
        self._idle_since = time.monotonic()
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Serve until told to end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        adopt(self._supervisor)
        await self._door.open()
        work = [
            loop.create_task(self._tick()),
            loop.create_task(self._sample_on()),
            loop.create_task(self._wait_for_stop()),
        ]
        await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        broken = [task for task in work if task.done() and task.exception()]
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        self._door.close()
        await self._sampler.close()
        await self._loads.stop()
        await self._supervisor.close()
        for task in broken:
            task.result()  # a bug: the next service does better without our state
        return 0

    async def _wait_for_stop(self) -> None:
        await self._stop.wait()

    # Time passing

    async def _tick(self) -> None:
        supervisor = self._supervisor
        while True:
            with contextlib.suppress(TimeoutError):
                pause = QUIET_TICK_S if supervisor.is_quiet else TICK_S
                await asyncio.wait_for(supervisor.stirred.wait(), pause)
            supervisor.stirred.clear()
            supervisor.tick()
            if not await self._door.keep():
                self._stop.set()  # nobody can reach us any more
            now = time.monotonic()
            busy = self._connections or self._loads.status()
            if busy or any(one.active for one in supervisor.managed.values()):
                self._idle_since = now
            elif now - self._idle_since > self._idle_exit_s:
                self._stop.set()

    async def _sample_on(self) -> None:
        changed = self._supervisor.changed
        while True:
            started = time.monotonic()
            nodes = [node.os_index for node in self._machine.numa_nodes]
            try:
                self._sample = await self._sampler.sample(
                    started,
                    subjects(self._supervisor),
                    nodes,
                    self._machine.gpus,
                    watched=self._watchers > 0,
                )
            except Exception as error:  # noqa: BLE001 - a sensor's oddity must not end the service
                self._supervisor.tell(f"sampling failed: {error!r}", "error")
            self._tell_silences()
            await self._look_for_strangers(started)
            await self._publish()
            self._past.add(started, self._instances())
            due = started + (WATCHED_EVERY_S if self._watchers else UNWATCHED_EVERY_S)
            while (left := due - time.monotonic()) > 0:
                changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), left)
                    # Changes come in bursts: one picture for all of a burst.
                    await asyncio.sleep(0.02)
                    await self._publish()
                if self._watchers:
                    due = min(due, started + WATCHED_EVERY_S)

    def _tell_silences(self) -> None:
        for name, managed in list(self._supervisor.managed.items()):
            figures = self._sample.figures.get(name)
            if figures is not None and figures.mark == managed.mark and figures.silent_s:
                self._supervisor.feed(managed, Silent(figures.silent_s))

    async def _look_for_strangers(self, now: float) -> None:
        if not self._watchers or now - self._strangers_at < STRANGERS_EVERY_S:
            return
        self._strangers_at = now
        root, machine = self._supervisor.root, self._machine
        found = await asyncio.to_thread(strangers_on, root, machine)
        largest = sorted(found, key=lambda one: (-one.rss_bytes, one.pid))[:MOST_STRANGERS]
        self._strangers = tuple(largest)

    async def _publish(self) -> None:
        self._snapshot = snapshot(
            self._supervisor,
            self._revision,
            self._sample,
            self._loads.status(),
            now=time.monotonic(),
            service_pid=os.getpid(),
            strangers=self._strangers,
            history=self._offers.past.history,
        )
        async with self._arrived:
            self._arrived.notify_all()

    async def _read_machine(self) -> Machine:
        self._machine = await asyncio.to_thread(read_machine, self._supervisor.root)
        self._revision = self._machine.revision  # costs more than all else of a snapshot
        return self._machine

    def _instances(self) -> tuple[InstanceStatus, ...]:
        return self._snapshot.instances if self._snapshot else ()

    # Connections and their calls

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        out = Outbox(writer, self._slow_client_s)
        try:
            refuse_strangers(writer)
            if self._connections > CONNECTIONS:
                busy = ControlError(
                    what="The service is busy",
                    why=f"{CONNECTIONS} clients are connected",
                    do="Close some of them",
                )
                await out.fail(busy)
                return
            await converse(reader, out, self._answer, self._tell_bug)
        except ClientGone:
            pass
        finally:
            self._connections -= 1
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    def _tell_bug(self, error: Exception) -> None:
        self._supervisor.tell(f"slotdeck has a bug: {error!r}", "error")

    async def _answer(self, request: Request, out: Outbox, gone: Gone, who: str) -> None:
        match request.call:
            case "machine":
                await out.send(await self._read_machine())
            case "snapshots":
                await self._stream_snapshots(out, gone)
                raise ClientGone  # its end is the end of the stream
            case "snapshot":
                await self._publish()  # as it is now: whoever has just applied looks at once
                await out.send(self._snapshot)
            case "past":
                await out.send(self._past.told(time.monotonic()))
            case "offer":
                change, machine = _change(request), await self._read_machine()
                await out.send(self._offers.offer(change, machine))
            case "apply":
                machine = await self._read_machine()
                await self._offers.apply(str(request.arguments.get("id")), machine, who)
                await out.send(Done())
            case "verify":
                look = msgspec.convert(request.arguments, _VerifyArguments)
                if look.repair:
                    self._supervisor.tell(f"{who}: repair {', '.join(look.names) or 'all'}")
                verified = verify_named(self._supervisor, look.names, repair=look.repair)
                await out.send(await verified)
            case "command":
                one = known(self._supervisor.managed, str(request.arguments.get("name")))
                around, machine = self._supervisor.around, self._machine
                await out.send(await asyncio.to_thread(command_line, one, machine, around))
            case "layout":
                await out.send(self._offers.layout())
            case "catalogue":
                wishes = [one.wish for one in self._supervisor.managed.values()]
                around = self._supervisor.around
                await out.send(await asyncio.to_thread(catalogue, around, wishes))
            case "log":
                name = str(request.arguments.get("name"))
                folder = known(self._supervisor.managed, name).folder
                arguments = msgspec.convert(request.arguments, _LogArguments)
                await out.send(
                    await asyncio.to_thread(
                        read_log,
                        folder,
                        offset=arguments.offset,
                        limit_bytes=max(4, min(arguments.limit_bytes, LIMIT_BYTES // 8)),
                    ),
                )
            case "ask":
                ask = msgspec.convert(request.arguments, _AskArguments)
                asked = known(self._supervisor.managed, ask.name)
                pieces = answer(asked, ask.prompt, ask.max_tokens)
                await _relay(out, pieces, gone)
            case "stop_service":
                await out.send(Done())
                self._stop.set()
            case other:
                raise ControlError(
                    what=f"The service does not know {other!r}",
                    why=f"it is slotdeck {__version__}",
                    do="Use the same version on both sides, or restart the service",
                )

    async def _stream_snapshots(self, out: Outbox, gone: Gone) -> None:
        self._watchers += 1
        self._supervisor.changed.set()
        await self._publish()
        sent: Snapshot | None = None
        try:
            while not gone.done() and not self._stop.is_set():
                if self._snapshot is not None and self._snapshot is not sent:
                    # Whatever came while a slow client drained is skipped, never queued.
                    sent = self._snapshot
                    await out.send(sent)
                    continue
                async with self._arrived:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._arrived.wait(), 1.0)
        finally:
            self._watchers -= 1


class _LogArguments(msgspec.Struct):
    offset: int = -1
    limit_bytes: int = 65536


class _VerifyArguments(msgspec.Struct):
    names: tuple[str, ...] = ()
    repair: bool = False


class _AskArguments(msgspec.Struct):
    name: str
    prompt: str
    max_tokens: int = 128


async def _relay(
    out: Outbox,
    pieces: AsyncIterator[AnswerPiece | AnswerEnd],
    gone: Gone,
) -> None:
    """Pass pieces on; a client that leaves ends the request at the engine."""

    async def pump() -> None:
        async for piece in pieces:
            await out.send(piece)

    pumping = asyncio.get_running_loop().create_task(pump())
    try:
        await asyncio.wait([pumping, gone], return_when=asyncio.FIRST_COMPLETED)
        if not pumping.done():
            raise ClientGone
        pumping.result()
    finally:
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)


def _change(request: Request) -> Change:
    kinds = {kind.__name__: kind for kind in get_args(Change)}
    kind = kinds.get(str(request.arguments.get("kind")))
    if kind is None:
        raise msgspec.ValidationError("unknown kind of change")
    change: Change = msgspec.convert(request.arguments.get("change"), kind)
    if isinstance(change, ApplyLayout) and change.base == HOME:
        return replace(change, base=str(Path(HOME).expanduser()))
    return change
