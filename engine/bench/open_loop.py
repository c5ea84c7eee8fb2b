"""Requests on a schedule of their own, whatever the engine does: what it delays is not omitted.

A stream that waits for its answer before it asks again is silent while the engine stalls, and so
leaves out the very requests that would have met the stall. Here each has an instant at which it
is due, and is sent then; where it could not be (too many under way), it is sent as soon as it can,
and its latency from the instant at which it was due is told beside the one from its sending.
"""

import asyncio
import itertools
import random
import statistics
from collections import deque
from collections.abc import Iterator
from itertools import pairwise

from engine.bench.alarm import Alarm
from engine.bench.sending import Sending
from engine.bench.tally import Flight
from engine.bench.values import Load, Schedule
from engine.core.errors import EngineUnreachable
from engine.core.quantiles import summarize

GIVE_UP_AFTER = 30
"""Errors in a row after which nothing more is sent."""
LATE_S = 0.005
STARTS_KEPT = 200_000
"""Endless loads judge their schedule by the newest."""


class OpenLoop(Sending):
    """Runs until its requests are used up or its window has closed, and all of them have ended."""

    _scheduler: asyncio.Task[None] | None = None
    _failed = 0
    """In a row."""
    _most = 0
    _under_way = 0
    _sent_measured = 0
    _held_back = 0
    _room_since = 0.0
    """What was due before then had to wait for room."""

    async def run(self) -> None:
        """The schedule, and then the last answers."""
        self._room = asyncio.Event()
        self._starts: deque[float] = deque(maxlen=STARTS_KEPT)
        self._late: deque[float] = deque(maxlen=STARTS_KEPT)
        try:
            async with asyncio.TaskGroup() as group:
                self._scheduler = group.create_task(self._schedule(group))
            self.close_window(self._clock())
        finally:
            self.warm.set()

    def _leave(self) -> None:
        """What is under way is waited for: without the slowest answers the figures flatter."""
        if self._scheduler is not None:
            self._scheduler.cancel()

    async def _schedule(self, group: asyncio.TaskGroup) -> None:
        alarm = Alarm()
        due = self._clock()
        try:
            for gap_s in gaps(self._load):
                due += gap_s
                await alarm.until(due)
                if self._under_way >= self._load.max_in_flight:
                    self._room.clear()
                    await self._room.wait()
                    self._room_since = self._clock()
                measured = self._is_measured(due)
                if measured and self._sent_measured == self._load.requests:
                    return
                self._began(due, measured=measured)
                group.create_task(self._one(Flight(due=due, measured=measured)))
        finally:
            alarm.close()

    def _is_measured(self, due: float) -> bool:
        opened_at = self.tally.opened_at
        return opened_at is not None and due >= opened_at

    def _began(self, due: float, *, measured: bool) -> None:
        self._under_way += 1
        self._most = max(self._most, self._under_way)
        if not measured:
            return
        now = self._clock()
        self._sent_measured += 1
        self._starts.append(now)
        if due < self._room_since:
            self._held_back += 1
        else:
            self._late.append(now - due)

    async def _one(self, flight: Flight) -> None:
        try:
            await self._request(flight)
        except EngineUnreachable as error:
            self.tally.fail(str(error), measured=flight.measured)
            self._failed += 1
            if self._failed == GIVE_UP_AFTER:
                self.gave_up_at = self._clock()
                self._leave()
        else:
            self._failed = 0
        finally:
            self._under_way -= 1
            self._room.set()
            self._warmed()

    def schedule(self) -> Schedule:
        """Of the window, once it has closed."""
        tally = self.tally
        late = sum(one > LATE_S for one in self._late)
        spacing = [later - earlier for earlier, later in pairwise(self._starts)]
        cv = None
        if len(spacing) > 1 and not self._held_back:
            cv = statistics.stdev(spacing) / statistics.fmean(spacing)
        return Schedule(
            arrival=self._load.arrival,
            max_in_flight=self._load.max_in_flight,
            sent=self._sent_measured,
            sent_per_s=self._sent_measured / tally.window_s if tally.window_s > 0 else None,
            held_back=self._held_back,
            most_in_flight=self._most,
            unfinished=sum(flight.measured for flight in self._flights.values()),
            lateness=summarize(self._late),
            late_share=late / len(self._late) if self._late else None,
            gap_cv=cv,
            ttft=tally.ttft(since_due=True),
            e2e=tally.e2e(since_due=True),
        )


def gaps(load: Load) -> Iterator[float]:
    """Seconds between the instants at which requests are due, without an end."""
    assert load.rate is not None, "only an open loop has a schedule"
    if load.arrival == "constant":
        return itertools.repeat(1 / load.rate)
    draw = random.Random(f"arrivals {load.seed}")
    rate = load.rate
    return (draw.expovariate(rate) for _ in itertools.count())
