"""The streams of one target: each sends its next request when its last one has ended."""

import asyncio
from collections.abc import Callable

from engine.bench.prepare import FIRST_PROMPT, Prepared, request_body
from engine.bench.prompts import Prompts
from engine.bench.tally import Flight, Tally
from engine.bench.values import Load
from engine.core.errors import EngineUnreachable
from engine.drivers import openai_api
from engine.drivers.openai_api import Piece

GIVE_UP_AFTER = 3
"""Errors in a row after which a stream stops trying."""
RETRY_S = 0.1


class ClosedLoop:
    """Runs until its requests are used up, all its streams gave up, or it is cancelled."""

    def __init__(
        self, prepared: Prepared, load: Load, prompts: Prompts, clock: Callable[[], float]
    ) -> None:
        self.prepared = prepared
        self.tally = Tally()
        self.warm = asyncio.Event()
        """Set when the warm-up requests have ended, however they ended."""
        self.gave_up_at: float | None = None
        self._load = load
        self._prompts = prompts
        self._clock = clock
        self._number = FIRST_PROMPT
        self._sent_measured = 0
        self._gave_up = 0
        self._flights: dict[int, Flight] = {}
        if load.warmups == 0:
            self.warm.set()

    def open_window(self, at: float) -> None:
        """A target that died in the warm-up gets none, so that it shows no rate and not 0."""
        if self.gave_up_at is None:
            self.tally.opened_at = at

    def close_window(self, at: float) -> None:
        """The first call counts: a target that ended early keeps its own, shorter window."""
        if self.tally.opened_at is None or self.tally.closed_at is not None:
            return
        self.tally.closed_at = at
        self.tally.cut_off = len(self._flights)
        for flight in self._flights.values():
            self.tally.cut(flight)
        self._flights.clear()

    async def run(self) -> None:
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

    async def _stream(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        failed = 0
        while self._may_send():
            try:
                await self._request()
            except EngineUnreachable as error:
                self.tally.fail(str(error))
                failed += 1
                if failed == GIVE_UP_AFTER:
                    self._gave_up += 1
                    return
                await asyncio.sleep(RETRY_S * failed)
            else:
                failed = 0
            if self.tally.ended + self.tally.errors >= self._load.warmups:
                self.warm.set()
                # Whoever waits opens the window now, and the next request is a measured one.
                await asyncio.sleep(0)

    def _may_send(self) -> bool:
        """Takes one of the measured requests, once the window is open and they are numbered."""
        if self._load.requests is None or self.tally.opened_at is None:
            return True
        self._sent_measured += 1
        return self._sent_measured <= self._load.requests

    async def _request(self) -> None:
        number = self._number
        self._number += 1
        flight = Flight()
        stamp = flight.stamps.append
        tally = self.tally

        def on_piece(piece: Piece) -> None:
            stamp(piece.at)
            tally.pieces_seen += piece.tokens

        measured = tally.opened_at is not None
        prepared, load = self.prepared, self._load
        prompt = self._prompts.text(number, prepared.words)
        self._flights[number] = flight
        try:
            done = await openai_api.stream(
                f"{prepared.base}/v1/completions",
                request_body(load, prepared.model, prompt, load.output_len),
                on_piece=on_piece,
                idle_timeout_s=load.idle_timeout_s,
                api_key=prepared.target.api_key,
                clock=self._clock,
            )
        except EngineUnreachable:
            if self._flights.pop(number, None) is not None:
                tally.cut(flight)
            raise
        if self._flights.pop(number, None) is None:
            return  # The window closed over it, and its tokens are counted already.
        if done.first_at is None:
            raise EngineUnreachable(
                what=f"{prepared.target.name} generated nothing",
                why="the stream ended well, but no event had any text",
                do="Look at what the engine answers to one prompt.",
            )
        tally.add(done, measured=measured)
