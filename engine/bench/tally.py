"""Counting: which tokens and which requests of a target belong to the measured window."""

from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from engine.core.goodput import Goodput, GoodputCount, Limits
from engine.core.quantiles import Summary, summarize
from engine.drivers.openai_api import Finished

GAPS_KEPT = 2_000_000
"""16 MB of stamps per target; what endless loads have before that is let go."""


@dataclass(slots=True)
class Flight:
    """A request that is under way, and the stamps of its pieces so far."""

    stamps: "array[float]" = field(default_factory=lambda: array("d"))
    measured: bool = False
    """The window was open when it was begun or, on a schedule, when it was due."""
    due: float | None = None
    """When the schedule of an open loop wanted it sent."""
    counted: bool = False
    """The window has closed over it: its tokens are in the figures already."""


class _Kept(NamedTuple):
    """A measured request whose latencies count."""

    done: Finished
    due: float
    """Where there is no schedule, when it was sent."""


@dataclass(slots=True)
class Tally:
    """One target's counts. All times are of one clock; `opened_at` is None during the warm-up."""

    opened_at: float | None = None
    closed_at: float | None = None
    finished: int = 0
    """Requests sent and ended inside the window."""
    ended: int = 0
    """All requests that ended well, the warm-up too."""
    errors: int = 0
    first_error: str | None = None
    pieces_seen: int = 0
    """Running, for the live line."""
    cut_off: int = 0
    dropped: int = 0
    limits: Limits = field(default_factory=Limits)
    _good: GoodputCount = field(init=False)
    _failed: int = 0
    """Measured requests among the errors."""
    _kept: deque[_Kept] = field(default_factory=deque)
    _gaps_kept: int = 0
    _window_tokens: float = 0.0
    _window_prompt_tokens: int = 0
    _window_prompts_unknown: int = 0
    _all_pieces: int = 0
    _all_tokens: int = 0
    _without_usage: int = 0
    _prompt_tokens: int = 0
    _output_tokens: int = 0
    _prompts_told: int = 0
    _cached_tokens: int | None = None

    def __post_init__(self) -> None:
        self._good = GoodputCount(self.limits)

    def add(self, done: Finished, flight: Flight) -> None:
        """A request that ended well.

        Connecting takes a while, so that one begun just before the window may be sent in it.
        """
        self.ended += 1
        tokens = output_tokens(done)
        self._all_tokens += tokens
        self._all_pieces += done.pieces
        self._without_usage += done.completion_tokens is None
        opened_at = self.opened_at
        if opened_at is None or done.first_at is None:
            return
        if not flight.counted:
            # So that a request's pieces in the window add up to the engine's own count.
            self._window_tokens += self._inside(done.piece_times) * tokens / done.pieces
            if done.first_at >= opened_at:
                if done.prompt_tokens is None:
                    self._window_prompts_unknown += 1
                else:
                    self._window_prompt_tokens += done.prompt_tokens
        if flight.measured:
            self._measure(done, flight, tokens)

    def _measure(self, done: Finished, flight: Flight, tokens: int) -> None:
        self.finished += 1
        self._output_tokens += tokens
        if done.prompt_tokens is not None:
            self._prompts_told += 1
            self._prompt_tokens += done.prompt_tokens
        if done.cached_tokens is not None:
            self._cached_tokens = (self._cached_tokens or 0) + done.cached_tokens
        kept = _Kept(done, done.sent_at if flight.due is None else flight.due)
        self._kept.append(kept)
        self._judge(kept)
        self._gaps_kept += done.pieces
        while self._gaps_kept > GAPS_KEPT and len(self._kept) > 1:
            self._gaps_kept -= self._kept.popleft().done.pieces
            self.dropped += 1

    def cut(self, flight: Flight) -> None:
        """A request that broke off or was in flight when the window closed: its tokens count."""
        flight.counted = True
        inside = self._inside(flight.stamps)
        self._window_tokens += inside * (self.tokens_per_piece or 1.0)
        if inside and self.opened_at is not None and flight.stamps[0] >= self.opened_at:
            self._window_prompts_unknown += 1

    def fail(self, why: str, *, measured: bool) -> None:
        self.errors += 1
        self._failed += measured
        self.first_error = self.first_error or why

    def _judge(self, kept: _Kept) -> None:
        done, due = kept
        if done.first_at is None or done.last_at is None:
            return
        self._good.add(
            done.first_at - due,
            (later - earlier for earlier, later in pairwise(done.piece_times)),
            tpot_s(done) or 0.0,
            done.last_at - due,
        )

    def goodput(self, unfinished: int = 0) -> Goodput | None:
        """None without limits. Those that failed or did not end have kept to none of them."""
        return self._good.result(failed=self._failed + unfinished, window_s=self.window_s)

    def _inside(self, stamps: "array[float]") -> int:
        if self.opened_at is None:
            return 0
        end = len(stamps) if self.closed_at is None else bisect_right(stamps, self.closed_at)
        return max(0, end - bisect_left(stamps, self.opened_at))

    @property
    def window_s(self) -> float:
        if self.opened_at is None or self.closed_at is None:
            return 0.0
        return self.closed_at - self.opened_at

    @property
    def counted_by(self) -> str:
        return "pieces" if self._without_usage else "usage"

    @property
    def tokens_per_piece(self) -> float | None:
        return self._all_tokens / self._all_pieces if self._all_pieces else None

    @property
    def prompt_tokens(self) -> float | None:
        return self._prompt_tokens / self._prompts_told if self._prompts_told else None

    @property
    def cached_share(self) -> float | None:
        """Of the prompts' tokens, those that the engine did not have to compute."""
        if self._cached_tokens is None or not self._prompt_tokens:
            return None
        return self._cached_tokens / self._prompt_tokens

    @property
    def output_tokens(self) -> float | None:
        return self._output_tokens / self.finished if self.finished else None

    def output_tokens_per_s(self) -> float | None:
        if self.window_s <= 0:
            return None
        return self._window_tokens / self.window_s

    def total_tokens_per_s(self, prompt_tokens: float | None) -> float | None:
        """`prompt_tokens` stands in for the prompts whose request was cut before it told."""
        output = self.output_tokens_per_s()
        if output is None or prompt_tokens is None:
            return None
        prompts = self._window_prompt_tokens + self._window_prompts_unknown * prompt_tokens
        return output + prompts / self.window_s

    def ttft(self, *, since_due: bool = False) -> Summary:
        return summarize(
            done.first_at - (due if since_due else done.sent_at)
            for done, due in self._kept
            if done.first_at is not None
        )

    def e2e(self, *, since_due: bool = False) -> Summary:
        return summarize(
            done.last_at - (due if since_due else done.sent_at)
            for done, due in self._kept
            if done.last_at is not None
        )

    def tpot(self) -> Summary:
        each = (tpot_s(done) for done, _ in self._kept)
        return summarize(one for one in each if one is not None)

    def itl(self) -> Summary:
        return summarize(
            later - earlier
            for done, _ in self._kept
            for earlier, later in pairwise(done.piece_times)
        )


def tpot_s(done: Finished) -> float | None:
    """None for an answer of one token, which has no gap."""
    if done.first_at is None or done.last_at is None or output_tokens(done) < 2:
        return None
    return (done.last_at - done.first_at) / (output_tokens(done) - 1)


def output_tokens(done: Finished) -> int:
    """The engine's own count where it gives one."""
    return done.tokens if done.completion_tokens is None else done.completion_tokens
