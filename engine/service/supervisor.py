"""The one writer: feeds events to the lifecycle and carries out what it decides."""

import asyncio
import signal
import time
from collections import deque
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from engine.core.errors import ControlError
from engine.core.lifecycle import (
    Answered,
    Effect,
    Event,
    Exited,
    Kill,
    Life,
    Policy,
    Spawn,
    SpawnFailed,
    StartAsked,
    StopAsked,
    Sweep,
    Terminate,
    Tick,
    step,
)
from engine.core.status import Happening, State
from engine.host.cpuset_group import remove
from engine.host.oom import oom_kills
from engine.host.paths import Paths
from engine.host.root import HostRoot
from engine.host.whose import Here
from engine.service.endings import end_of, still_held, sweep
from engine.service.follower import Follower
from engine.service.launcher import Launched
from engine.service.ledger import Ledger
from engine.service.managed import Managed
from engine.service.orders import Planned, Surroundings
from engine.service.processes import kill_leftovers, lives, signal_group
from engine.service.readiness import became_ready
from engine.service.starter import Starter
from engine.service.verification import Asked, differences, summary

_HAPPENINGS_KEPT = 100
_WATCH_AGAIN_S, _JOURNAL_WITHIN_S = 1.0, 2.0


class Supervisor:
    """Owns every instance. All methods run on one event loop."""

    def __init__(
        self,
        paths: Paths,
        around: Surroundings,
        *,
        root: HostRoot | None = None,
        patience: Policy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.paths = paths
        self.around = around
        self.root = root or HostRoot()
        self.patience = patience or Policy()
        self.managed: dict[str, Managed] = {}
        self.happenings: deque[Happening] = deque(maxlen=_HAPPENINGS_KEPT)
        self.changed = asyncio.Event()
        """Set whenever something worth a new snapshot happened."""
        self.stirred = asyncio.Event()
        """Set whenever a state has changed, so that its time is looked after."""
        self.clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._follower = Follower(self.root)
        self._ledger = Ledger(
            paths.journal,
            Here.of(self.root),
            lambda: [managed.row() for managed in self.managed.values()],
            self.tell,
        )
        self._starter = Starter(self.root, around, self._ledger, paths.state)

    # What others ask for

    def tell(self, text: str, severity: str = "information") -> None:
        """Add a line to the list of happenings."""
        self.happenings.append(Happening(_utc(), severity, text))
        self.changed.set()

    def expect(self, starts: int) -> None:
        """So many may be asked for in a moment."""
        self._starter.expect(starts)

    def start(self, planned: Planned, layout: str) -> None:
        """Start a wish where it is placed; one that runs elsewhere or otherwise is moved there."""
        wish, placement, base = planned.wish, planned.placement, planned.base
        managed = self.managed.get(wish.name)
        if managed is None:
            life = Life(State.STOPPED, self.clock(), "not started yet")
            folder = self.paths.instance(wish.name)
            managed = Managed(wish, placement, base, life, folder, patience=self.patience)
            self.managed[wish.name] = managed
        managed.wish, managed.placement, managed.base = wish, placement, base
        managed.command, managed.layout, managed.forget = planned.command, layout, False
        if managed.active:
            self.feed(managed, StopAsked(then_start=True))
        else:
            self.feed(managed, StartAsked())

    def stop(self, name: str, *, forget: bool) -> None:
        """Stop an instance; with `forget` it leaves the list when it has stopped."""
        managed = self.managed[name]
        managed.forget = managed.forget or forget
        self.feed(managed, StopAsked())
        self._forget_if_done(managed)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing starts, stops, or waits to start again."""
        settled = (State.READY, State.STOPPED, State.FAILED)
        return all(one.life.state in settled for one in self.managed.values())

    def tick(self) -> None:
        """Let time pass: grace periods, back-offs, an unsaved journal."""
        for managed in list(self.managed.values()):
            self.feed(managed, Tick(managed.note))
        self._ledger.retry()

    def feed(self, managed: Managed, event: Event) -> None:
        """Let the lifecycle decide, remember the decision, and have its effects carried out."""
        before = managed.life
        managed.life, effects = step(self.clock(), before, event, managed.policy)
        if isinstance(event, Exited):
            managed.launched = None
        if before.state is State.STARTING and managed.life.state is State.READY:
            at = managed.launched_at
            managed.loading_s = None if at is None else managed.life.since - at
        if managed.life is before and not effects:
            return
        if managed.life.state != before.state:
            severity = {State.FAILED: "error", State.BACKOFF: "warning"}.get(managed.life.state)
            text = f"{managed.name}: {managed.life.state} — {managed.life.why}"
            self.tell(text, severity or "information")
            managed.note = ""
            self.stirred.set()
        self.save()
        self.changed.set()
        self.carry_out(managed, *effects)
        self._forget_if_done(managed)

    def save(self) -> None:
        """Have the journal written soon; effects wait for it."""
        self._ledger.save()

    async def saved(self) -> None:
        """Return when what was decided up to now is on disk, or cannot be."""
        await self._ledger.saved_within(_JOURNAL_WITHIN_S)

    async def close(self) -> None:
        """Leave: engines stay as they are."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._ledger.close()
        self._follower.close()
        self._starter.close()

    # Adoption

    def watch(self, managed: Managed) -> None:
        """Follow a launched engine by pidfd until it ends; it may have ended already."""
        launched, mark = managed.launched, managed.mark
        if launched is None:
            return

        def ended() -> None:
            self.run(self._collect(managed, mark))

        managed.oom_kills = oom_kills(self.root, launched.pid)
        try:
            self._follower.follow(launched.pid, launched.started_ticks, ended)
            self._follow_shim(managed, launched, mark)
        except OSError as error:
            self.tell(f"{managed.name} cannot be watched: {error.strerror}", "error")
            loop = asyncio.get_running_loop()
            loop.call_later(_WATCH_AGAIN_S, self._watch_again, managed, mark)

    def _follow_shim(self, managed: Managed, launched: Launched, mark: str) -> None:
        def ended() -> None:
            self.run(self._shim_ended(managed, mark))

        self._follower.follow(launched.shim_pid, launched.shim_ticks, ended)

    def _watch_again(self, managed: Managed, mark: str) -> None:
        if managed.mark == mark:
            self.watch(managed)

    def probe(self, managed: Managed) -> None:
        """Wait for its first token and then verify it."""
        self.run(self._probe(managed, managed.mark))

    # Effects

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside; it ends with the supervisor."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.tell(f"slotdeck has a bug: {error!r}", "error")

    def carry_out(self, managed: Managed, *effects: Effect) -> None:
        """Carry out effects, in order, after those of this instance that still wait."""
        if effects:
            managed.pending += 1
            self.run(self._carry_out(managed, effects))

    async def _carry_out(self, managed: Managed, effects: tuple[Effect, ...]) -> None:
        try:
            async with managed.work:
                # First on disk, then done: the next service goes on from what was decided. A start
                # sees to that itself.
                if effects != (Spawn(),):
                    await self.saved()
                for effect in effects:
                    match effect:
                        case Spawn():
                            await self._spawn(managed)
                        case Terminate():
                            self._signal(managed, signal.SIGTERM)
                        case Kill():
                            self._signal(managed, signal.SIGKILL)
                            await self._kill_all(managed)
                        case Sweep():
                            await self._sweep(managed)
        finally:
            managed.pending -= 1
            self._forget_if_done(managed)

    async def _kill_all(self, managed: Managed) -> None:
        await asyncio.to_thread(kill_leftovers, self.root, managed.mark, managed.folder)

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
        try:
            await self._launch(managed)
        except ControlError as error:
            failed = SpawnFailed(error.why, error.do)
        except Exception as error:  # noqa: BLE001 - a start that hangs for ever is worse
            failed = SpawnFailed(f"slotdeck has a bug: {error!r}")
            await sweep(self.root, managed.mark, managed.folder)
        else:
            return
        managed.launched = managed.running = None
        self.feed(managed, failed)

    async def _launch(self, managed: Managed) -> None:
        managed.launched, managed.verified, managed.started_at = None, None, _utc()
        managed.differences = ()
        managed.launched = await self._starter.start(managed)
        managed.launched_at = self.clock()
        self.save()
        self.changed.set()
        self.watch(managed)
        self.probe(managed)

    async def _until_vacated(self, managed: Managed) -> None:
        """Wait while the process of another instance still holds our PUs, GPUs or port."""
        while managed.life.state is State.STARTING:
            holders = [
                other.name
                for other in self.managed.values()
                if other is not managed and other.occupies(managed.placement)
            ]
            if not holders:
                managed.note = ""
                return
            managed.note = f"waits for {', '.join(holders)} to leave its slot"
            await asyncio.sleep(0.05)

    async def _probe(self, managed: Managed, mark: str) -> None:
        def told(note: str) -> None:
            waits = managed.mark == mark and managed.life.state is State.STARTING
            if waits and managed.note != note:
                managed.note = note
                self.changed.set()

        if await became_ready(self.root, managed, mark, told):
            self.feed(managed, Answered())
            await self.verify(managed)

    async def verify(self, managed: Managed) -> None:
        """Compare what was asked with what the kernel shows; not in the middle of a move."""
        launched, mark = managed.launched, managed.mark
        if launched is None or managed.going is not None:
            return
        asked = Asked(
            launched.pid, mark, managed.at.placement, launched.degraded, launched.unlimited
        )
        found = await asyncio.to_thread(differences, self.root, asked)
        if managed.mark != mark or managed.launched is None or managed.going is not None:
            return
        news = found != managed.differences
        managed.differences, managed.verified = found, not found
        managed.note = summary(found)
        if found and news:
            self.tell(f"{managed.name} differs from what was asked: {managed.note}", "warning")
        self.save()
        self.changed.set()

    async def _collect(self, managed: Managed, mark: str) -> None:
        """The engine's main process has ended: learn how from the shim, and why."""
        end = await end_of(self.root, managed)
        if managed.mark == mark:
            self.feed(managed, end.exited)
            if end.said and managed.life.state in (State.FAILED, State.BACKOFF):
                self.tell(f"{managed.name}: its last line was: {end.said}")

    async def _sweep(self, managed: Managed) -> None:
        """Nothing of the instance may be left: no process, and nobody on its port."""
        killed, left = await sweep(self.root, managed.mark, managed.folder)
        for folder in managed.running.groups if managed.running else ():
            remove(self.root, folder)
        if killed:
            many = "1 process" if killed == 1 else f"{killed} processes"
            self.tell(f"{managed.name}: ended {many} that it left behind")
        managed.note = await asyncio.to_thread(still_held, self.root, managed, left)
        if managed.note:
            self.tell(f"{managed.name}: {managed.note}", "warning")
        managed.running = None
        self.save()
        self.changed.set()

    async def _shim_ended(self, managed: Managed, mark: str) -> None:
        launched = managed.launched
        if launched is None or managed.mark != mark:
            return
        # A shim ends after its engine, unless somebody killed it.
        if not lives(self.root, launched.pid, launched.started_ticks):
            return
        try:
            relieved = await self._starter.relieve(managed, launched)
            if managed.launched == launched:
                managed.launched = relieved
                self.save()
                self._follow_shim(managed, relieved, mark)
            log = "another one keeps its log"
        except OSError as error:
            log = f"but its log stops here ({error.strerror or error})"
        text = f"{managed.name}: its launcher was killed; the engine goes on, {log}"
        self.tell(f"{text}, and its exit code will be unknown", "warning")

    def _forget_if_done(self, managed: Managed) -> None:
        at_rest = managed.life.state in (State.STOPPED, State.FAILED) and not managed.pending
        if managed.forget and at_rest and self.managed.get(managed.name) is managed:
            del self.managed[managed.name]
            self.save()
            self.changed.set()


def _utc() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
