"""A fixed number of streams: each sends its next request when its last one has ended."""

import asyncio

from engine.bench.sending import Sending
from engine.bench.tally import Flight
from engine.core.errors import EngineUnreachable

GIVE_UP_AFTER = 3
"""Errors in a row after which a stream stops trying."""
RETRY_S = 0.1


class ClosedLoop(Sending):
    """Runs until its requests are used up, all its streams gave up, or it is cancelled."""

    _sent_measured = 0
    _gave_up = 0

    async def run(self) -> None:
        """All streams to their ends."""
        streams = self._load.concurrency
        spacing_s = self.prepared.stagger_s / streams
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(streams):
                    group.create_task(self._stream(index * spacing_s))
            now = self._clock()
            if self._gave_up == streams:
                self.gave_up_at = now
            self.close_window(now)
        finally:
            self.warm.set()

    def _leave(self) -> None:
        """Cut off: had they been waited for, their streams would have had less company."""
        self.tally.cut_off = len(self._flights)
        self._flights.clear()

    async def _stream(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        failed = 0
        while self._may_send():
            measured = self.tally.opened_at is not None
            try:
                await self._request(Flight(measured=measured))
            except EngineUnreachable as error:
                self.tally.fail(str(error), measured=measured)
                failed += 1
                if failed == GIVE_UP_AFTER:
                    self._gave_up += 1
                    return
                await asyncio.sleep(RETRY_S * failed)
            else:
                failed = 0
            if self._warmed():
                # Whoever waits opens the window now, and the next request is a measured one.
                await asyncio.sleep(0)

    def _may_send(self) -> bool:
        """Takes one of the measured requests, once the window is open and they are numbered."""
        if self._load.requests is None or self.tally.opened_at is None:
            return True
        self._sent_measured += 1
        return self._sent_measured <= self._load.requests
