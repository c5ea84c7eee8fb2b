"""The requests of one target, whenever they are sent: each is made, streamed and counted."""

import asyncio
from collections.abc import Callable

from engine.bench.prepare import FIRST_PROMPT, Prepared, request_body
from engine.bench.prompts import PromptSource
from engine.bench.tally import Flight, Tally
from engine.bench.values import Load
from engine.core.errors import EngineUnreachable
from engine.drivers import openai_api
from engine.drivers.openai_api import Piece


class Sending:
    """What closed and open loops share; `run` says when the requests are sent."""

    def __init__(
        self, prepared: Prepared, load: Load, prompts: PromptSource, clock: Callable[[], float]
    ) -> None:
        self.prepared = prepared
        self.tally = Tally(limits=load.limits)
        self.warm = asyncio.Event()
        """Set when the warm-up requests have ended, however they ended."""
        self.gave_up_at: float | None = None
        self._load = load
        self._prompts = prompts
        self._clock = clock
        self._number = FIRST_PROMPT
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
        for flight in self._flights.values():
            self.tally.cut(flight)
        self._leave()

    def _leave(self) -> None:
        """The window has closed over the requests that are under way."""
        raise NotImplementedError

    async def run(self) -> None:
        """Until its requests are used up, it gave up, or it is cancelled."""
        raise NotImplementedError

    def _warmed(self) -> bool:
        if self.tally.ended + self.tally.errors >= self._load.warmups:
            self.warm.set()
        return self.warm.is_set()

    async def _request(self, flight: Flight) -> None:
        """Raises EngineUnreachable; whatever comes of it has been counted but for the error."""
        number = self._number
        self._number += 1
        stamp = flight.stamps.append
        tally, prepared, load = self.tally, self.prepared, self._load

        def on_piece(piece: Piece) -> None:
            stamp(piece.at)
            tally.pieces_seen += piece.tokens

        prompt = self._prompts.prompt(number, prepared.words)
        self._flights[number] = flight
        try:
            done = await openai_api.stream(
                prepared.base + prompt.path,
                request_body(load, prepared.model, prompt),
                on_piece=on_piece,
                idle_timeout_s=load.idle_timeout_s,
                api_key=prepared.target.api_key,
                clock=self._clock,
            )
        except EngineUnreachable:
            if self._flights.pop(number, None) is not None and not flight.counted:
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
        tally.add(done, flight)
