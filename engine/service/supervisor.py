"""The one writer: feeds events to the lifecycle and carries out what it decides."""

import asyncio
import contextlib
import os
import signal
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from engine.core.errors import ControlError
from engine.core.layout import Instance
from engine.core.lifecycle import (
    Answered,
    Effect,
    Event,
    Exited,
    Kill,
    Life,
    Spawn,
    SpawnFailed,
    StartAsked,
    StopAsked,
    Sweep,
    Terminate,
    Tick,
    step,
)
from engine.core.placement import Placement
from engine.core.status import Happening, State
from engine.host.paths import Paths
from engine.host.ports import listening_ports
from engine.host.process import boot_id
from engine.host.root import HostRoot
from engine.service.journal import SCHEMA, JournalPage, write_journal
from engine.service.launcher import LaunchOrder, launch
from engine.service.logs import last_line
from engine.service.managed import Managed
from engine.service.planning import Surroundings, order_of
from engine.service.processes import (
    exit_record,
    kill_leftovers,
    leftovers,
    open_verified,
    signal_group,
)
from engine.service.readiness import differences, wait_until_ready

_HAPPENINGS_KEPT = 100
_VACATED_WITHIN_S = 120.0


class Supervisor:
    """Owns every instance. All methods run on one event loop; only launching has a thread."""

    def __init__(
        self,
        paths: Paths,
        around: Surroundings,
        *,
        root: HostRoot | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.paths = paths
        self.around = around
        self.root = root or HostRoot()
        self.managed: dict[str, Managed] = {}
        self.happenings: deque[Happening] = deque(maxlen=_HAPPENINGS_KEPT)
        self.changed = asyncio.Event()
        """Set whenever something worth a new snapshot happened."""
        self._clock = clock
        # Affinity and memory policy belong to a thread, so launching has one of its own.
        self._launching = ThreadPoolExecutor(max_workers=1, thread_name_prefix="launch")
        self._tasks: set[asyncio.Task[None]] = set()
        self._shims: set[int] = set()
        self._unsaved = False
        self._boot_id = boot_id(self.root)

    # What others ask for

    def tell(self, text: str, severity: str = "information") -> None:
        """Add a line to the list of happenings."""
        self.happenings.append(Happening(_utc(), severity, text))
        self.changed.set()

    def start(self, wish: Instance, placement: Placement, base: str, layout: str) -> None:
        """Start a wish at a placement; one that runs elsewhere or otherwise is moved there."""
        managed = self.managed.get(wish.name)
        if managed is None:
            life = Life(State.STOPPED, self._clock(), "not started yet")
            folder = self.paths.instance(wish.name)
            managed = Managed(wish, placement, base, life, folder)
            self.managed[wish.name] = managed
        managed.wish, managed.placement, managed.base = wish, placement, base
        managed.layout, managed.forget = layout, False
        if managed.active:
            self.feed(managed, StopAsked(then_start=True))
        else:
            self.feed(managed, StartAsked())

    def stop(self, name: str, *, forget: bool) -> None:
        """Stop an instance; with `forget` it leaves the list when it has stopped."""
        managed = self.managed[name]
        managed.forget = forget
        self.feed(managed, StopAsked())
        self._forget_if_done(managed)

    def tick(self) -> None:
        """Let time pass: grace periods, back-offs, an unsaved journal, ended shims."""
        for managed in list(self.managed.values()):
            self.feed(managed, Tick())
        if self._unsaved:
            self.save()
        for pid in list(self._shims):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            self._shims.discard(pid)

    def feed(self, managed: Managed, event: Event) -> None:
        """Let the lifecycle decide, remember the decision, and have its effects carried out."""
        before = managed.life
        managed.life, effects = step(self._clock(), before, event, managed.policy)
        if managed.life is before and not effects:
            return
        if managed.life.state != before.state:
            severity = {State.FAILED: "error", State.BACKOFF: "warning"}.get(managed.life.state)
            text = f"{managed.name}: {managed.life.state} — {managed.life.why}"
            self.tell(text, severity or "information")
            managed.note = ""
        self._forget_if_done(managed)
        self.save()
        self.changed.set()
        if effects:
            self._run(self._carry_out(managed, effects))

    def save(self) -> None:
        """Write the journal; when the disk refuses, say so once and try again each tick."""
        rows = [managed.row() for managed in self.managed.values()]
        try:
            write_journal(self.paths.journal, JournalPage(SCHEMA, self._boot_id, rows))
        except OSError as error:
            if not self._unsaved:
                self.tell(f"the journal cannot be written: {error.strerror}", "error")
            self._unsaved = True
        else:
            if self._unsaved:
                self.tell("the journal is written again")
            self._unsaved = False

    async def close(self) -> None:
        """Leave: engines stay as they are."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._launching.shutdown(wait=False)

    # Adoption

    def watch(self, managed: Managed) -> bool:
        """Follow a launched engine by pidfd; False when it has ended already."""
        launched = managed.launched
        if launched is None:
            return False
        watched = open_verified(self.root, launched.pid, launched.started_ticks)
        if watched is None:
            return False
        loop = asyncio.get_running_loop()
        mark = managed.mark

        def ended() -> None:
            loop.remove_reader(watched)
            os.close(watched)
            self._run(self._collect(managed, mark))

        loop.add_reader(watched, ended)
        return True

    def collect_ended(self, managed: Managed) -> None:
        """An engine of the journal has ended while nobody watched."""
        self._run(self._collect(managed, managed.mark))

    def probe(self, managed: Managed) -> None:
        """Wait for its first token and then verify it."""
        self._run(self._probe(managed, managed.mark))

    def recheck(self, managed: Managed) -> None:
        """Verify an adopted engine again: nobody watched it for a while."""
        self._run(self.verify(managed))

    def terminate(self, managed: Managed) -> None:
        """Ask again for the end that an earlier service asked for."""
        self._run(self._carry_out(managed, (Terminate(),)))

    # Effects

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.tell(f"slotdeck has a bug: {error!r}", "error")

    async def _carry_out(self, managed: Managed, effects: tuple[Effect, ...]) -> None:
        async with managed.work:
            for effect in effects:
                match effect:
                    case Spawn():
                        await self._spawn(managed)
                    case Terminate():
                        self._signal(managed, signal.SIGTERM)
                    case Kill():
                        self._signal(managed, signal.SIGKILL)
                        await asyncio.to_thread(kill_leftovers, self.root, managed.mark)
                    case Sweep():
                        await self._sweep(managed)

    def _signal(self, managed: Managed, number: signal.Signals) -> None:
        launched = managed.launched
        if launched is not None:
            signal_group(self.root, launched.pid, launched.started_ticks, number)

    async def _spawn(self, managed: Managed) -> None:
        await self._until_vacated(managed)
        if managed.life.state is not State.STARTING:
            # Stopped while it waited for its slot: there is no process that could end.
            self.feed(managed, Exited(0))
            return
        if self._unsaved:
            why = "the journal cannot be written, so the engine could be lost"
            self.feed(managed, SpawnFailed(f"{why}: free some disk space"))
            return
        try:
            planned = order_of(
                managed.wish, managed.placement, self.around, base=managed.base, live=True
            )
            managed.mark = uuid.uuid4().hex
            managed.launched, managed.verified, managed.started_at = None, None, _utc()
            self.save()
            order = LaunchOrder(
                name=managed.name,
                command=planned.command,
                pus=managed.placement.pus,
                memory=managed.placement.memory,
                folder=managed.folder,
                mark=managed.mark,
                allow_degraded=managed.wish.allow_degraded,
            )
            loop = asyncio.get_running_loop()
            launched = await loop.run_in_executor(self._launching, launch, order)
        except ControlError as error:
            self.feed(managed, SpawnFailed(f"{error.why}. {error.do}"))
            return
        managed.launched = launched
        self._shims.add(launched.shim_pid)
        self.save()
        if self.watch(managed):
            self.probe(managed)
        else:
            self.collect_ended(managed)

    async def _until_vacated(self, managed: Managed) -> None:
        """Wait while an instance that is stopping still holds our PUs, GPUs or port."""
        deadline = self._clock() + _VACATED_WITHIN_S
        while self._clock() < deadline and managed.life.state is State.STARTING:
            holders = [
                other.name
                for other in self.managed.values()
                if other is not managed
                and other.life.state is State.STOPPING
                and (
                    other.placement.pus & managed.placement.pus
                    or set(other.placement.gpus) & set(managed.placement.gpus)
                    or other.placement.port == managed.placement.port
                )
            ]
            if not holders:
                return
            managed.note = f"waits for {', '.join(holders)} to leave its slot"
            await asyncio.sleep(0.05)

    async def _probe(self, managed: Managed, mark: str) -> None:
        def told(note: str) -> None:
            if managed.mark == mark and managed.note != note:
                managed.note = note
                self.changed.set()

        waiting = asyncio.ensure_future(wait_until_ready(managed, told))
        try:
            while managed.life.state is State.STARTING and managed.mark == mark:
                done, _ = await asyncio.wait([waiting], timeout=0.2)
                if done:
                    waiting.result()
                    break
            else:
                return
        finally:
            waiting.cancel()
        if managed.mark == mark:
            self.feed(managed, Answered())
            await self.verify(managed)

    async def verify(self, managed: Managed) -> None:
        """Compare what was asked with what /proc shows."""
        launched = managed.launched
        if launched is None:
            return
        found = await asyncio.to_thread(differences, self.root, launched.pid, managed.placement)
        if launched.degraded:
            found = (launched.degraded, *found)
        managed.verified = not found
        managed.note = "; ".join(found)
        if found:
            self.tell(f"{managed.name} differs from what was asked: {managed.note}", "warning")
        self.save()
        self.changed.set()

    async def _collect(self, managed: Managed, mark: str) -> None:
        """The engine's main process has ended: learn its exit code from the shim."""
        code: int | None = None
        for _ in range(100):
            record = exit_record(managed.folder, mark)
            if record.get("state") == "ended":
                told = record.get("code")
                code = told if isinstance(told, int) else None
                break
            await asyncio.sleep(0.02)
        if managed.mark == mark:
            self.feed(managed, Exited(code, await asyncio.to_thread(last_line, managed.folder)))

    async def _sweep(self, managed: Managed) -> None:
        """Nothing of the instance may be left: no process, and nobody on its port."""
        mark = managed.mark
        killed = await asyncio.to_thread(kill_leftovers, self.root, mark)
        if killed:
            self.tell(f"{managed.name}: ended {len(killed)} processes that it left behind")
        for _ in range(100):
            if not await asyncio.to_thread(leftovers, self.root, mark):
                break
            await asyncio.sleep(0.05)
        else:
            self.tell(f"{managed.name}: processes of it are left that do not end", "warning")
        managed.launched = None
        if managed.placement.port in listening_ports(self.root):
            self.tell(
                f"{managed.name}: somebody still listens on its port {managed.placement.port}",
                "warning",
            )
        self.save()

    def _forget_if_done(self, managed: Managed) -> None:
        if managed.forget and managed.life.state in (State.STOPPED, State.FAILED):
            self.managed.pop(managed.name, None)
            self.save()


def _utc() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
