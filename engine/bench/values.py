"""What a benchmark is asked, what it says while it runs, and what it found."""

import math
from dataclasses import dataclass, field

from engine.core.errors import UsageError
from engine.core.goodput import Goodput, Limits
from engine.core.quantiles import Summary

ARRIVALS = ("poisson", "constant")
MAX_IN_FLIGHT = 512


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    url: str
    """The engine's base address, such as http://127.0.0.1:8001."""
    model: str | None = None
    """Asked from /v1/models where it is None."""
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Load:
    """With a rate an open loop: requests go out on schedule, whatever the engine does; without
    one a closed loop: each stream sends its next request when its last one has ended."""

    concurrency: int = 1
    """Streams per target, of a closed loop."""
    rate: float | None = None
    """Requests/s per target, of an open loop."""
    arrival: str = "poisson"
    """How an open loop's requests are spaced: "poisson" (at random) or "constant"."""
    max_in_flight: int = MAX_IN_FLIGHT
    """Of an open loop, per target: a request beyond it waits, and its wait counts."""
    limits: Limits = field(default_factory=Limits)
    input_len: int = 64
    output_len: int = 100
    duration_s: float | None = 10.0
    """Length of the measured window, which opens when the warm-up is over."""
    requests: int | None = None
    """Measured requests per target; with a duration too, whichever comes first."""
    warmup_requests: int | None = None
    """Dropped, per target; None is one for each stream, or a second's worth of an open loop."""
    seed: int = 0
    """The same seed sends the same prompts: to an engine that caches prefixes and served this
    seed before, give another one."""
    temperature: float = 0.0
    ignore_eos: bool = True
    stagger_s: float | None = None
    """All streams start within it, evenly; None is one inter-token time of an idle engine."""
    idle_timeout_s: float = 120.0
    """The longest silence of a request before it counts as an error."""

    def __post_init__(self) -> None:
        def refuse(why: str) -> UsageError:
            return UsageError(what="This load cannot be made", why=why, do="Change that value.")

        for name in ("concurrency", "input_len", "output_len"):
            if getattr(self, name) < 1:
                raise refuse(f"{name} must be at least 1")
        if self.duration_s is None and self.requests is None:
            raise refuse("it has neither a duration nor a number of requests, so it never ends")
        if self.duration_s is not None and not self.duration_s > 0:
            raise refuse("the duration must be longer than 0 s")
        if self.requests is not None and self.requests < 1:
            raise refuse("requests must be at least 1")
        if self.warmup_requests is not None and self.warmup_requests < 0:
            raise refuse("warmup_requests must be at least 0")
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise refuse("the rate must be above 0 requests/s")
        if self.arrival not in ARRIVALS:
            raise refuse(f"arrival must be one of: {', '.join(ARRIVALS)}")
        if self.max_in_flight < 1:
            raise refuse("max_in_flight must be at least 1")

    @property
    def warmups(self) -> int:
        """One for each stream; of an open loop a second's worth."""
        if self.warmup_requests is not None:
            return self.warmup_requests
        return self.concurrency if self.rate is None else max(1, round(self.rate))


@dataclass(frozen=True, slots=True)
class TargetProgress:
    name: str
    tokens_per_s: float | None
    """Output tokens over the last two seconds; None before anything can be said."""
    finished: int
    """Measured requests so far."""
    errors: int


@dataclass(frozen=True, slots=True)
class Progress:
    phase: str
    """"preparing", "warming up", "measuring", or "waiting for the last answers"."""
    elapsed_s: float
    """Since this phase began."""
    targets: tuple[TargetProgress, ...]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How well an open loop's schedule was kept, and latencies that count from it."""

    arrival: str
    max_in_flight: int
    sent: int
    """Requests that were due in the window and were sent."""
    sent_per_s: float | None
    held_back: int
    """Of those, the ones that had to wait because `max_in_flight` were under way."""
    most_in_flight: int
    unfinished: int
    """Due in the window, and without an end long after it."""
    lateness: Summary
    """From the scheduled instant until its sending began, of those that were not held back."""
    late_share: float | None
    """Of those, the ones begun more than LATE_S too late."""
    gap_cv: float | None
    """Standard deviation of the gaps between sends over their mean; 0 at a constant rate, about
    1 for Poisson arrivals. None where fewer than 3 were sent, or one was held back."""
    ttft: Summary
    """Like the target's, but from the instant at which the request was due."""
    e2e: Summary


@dataclass(frozen=True, slots=True)
class TargetReport:
    """One target's figures; times in seconds. The manifest tells the rules of counting."""

    name: str
    url: str
    concurrency: int | None
    """None for an open loop."""
    requests: int
    errors: int
    ttft: Summary
    itl: Summary
    tpot: Summary
    e2e: Summary
    output_tokens_per_s: float | None
    total_tokens_per_s: float | None
    """None where the engine does not say how long the prompts were."""
    first_error: str | None = None
    model: str | None = None
    window_s: float = 0.0
    cut_off: int = 0
    """Requests in flight when the window closed; no latency of theirs counts."""
    dropped: int = 0
    """Oldest requests whose latencies were let go, to bound the memory of endless loads."""
    gave_up_s: float | None = None
    """When, in the window, the last stream stopped trying."""
    counted_by: str = "usage"
    """"usage" (the engine's own count) or "pieces" (events with text)."""
    tokens_per_piece: float | None = None
    prompt_tokens: float | None = None
    """Mean length that the prompts really had."""
    prompt_words: int | None = None
    cached_share: float | None = None
    """Of the prompts' tokens, those from a prefix cache; None where the engine does not tell."""
    output_tokens: float | None = None
    """Mean length of the finished answers."""
    stagger_s: float | None = None
    models_answer: object = None
    rate: float | None = None
    schedule: Schedule | None = None
    goodput: Goodput | None = None
    """None without limits."""
    notes: tuple[str, ...] = ()
    """What else a reader must know of these figures."""


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """Whether the load generator itself was short of CPU in the window."""

    cpu_share: float
    """Of one core."""
    runqueue_wait_share: float | None
    """Share of the wall time in which its thread was runnable but did not run."""
    loop_lag_p50_s: float | None = None
    loop_lag_p99_s: float | None = None
    loop_lag_max_s: float | None = None
    limits: tuple[str, ...] = ()
    """Why its figures are to be doubted."""
    judged: bool = True
    """False for an outside load generator: whether it was the limit is not known."""

    @property
    def limited(self) -> bool:
        return bool(self.limits)


@dataclass(frozen=True, slots=True)
class Report:
    targets: tuple[TargetReport, ...]
    client: ClientHealth
    manifest: dict[str, object]
