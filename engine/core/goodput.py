"""Goodput: how many requests were answered within latency limits, and how many a second."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request must keep to, in seconds; None asks nothing."""

    ttft_s: float | None = None
    itl_s: float | None = None
    """The longest gap of the request."""
    tpot_s: float | None = None
    """Its mean gap."""
    e2e_s: float | None = None

    def __bool__(self) -> bool:
        return any(limit is not None for limit in self.told().values())

    def told(self) -> dict[str, float | None]:
        """By the names that reports have for them."""
        return {
            "ttft": self.ttft_s,
            "itl": self.itl_s,
            "tpot": self.tpot_s,
            "e2e": self.e2e_s,
        }

    def missed(
        self, ttft_s: float, longest_gap_s: float, tpot_s: float, e2e_s: float
    ) -> list[str]:
        """Which of them this request did not keep to."""
        got = {"ttft": ttft_s, "itl": longest_gap_s, "tpot": tpot_s, "e2e": e2e_s}
        return [
            name for name, limit in self.told().items() if limit is not None and got[name] > limit
        ]


@dataclass(frozen=True, slots=True)
class Goodput:
    """Of one target in one window."""

    limits: Limits
    met: int
    """Requests that kept to all limits."""
    of: int
    """All that ended, and those that failed or never ended: they kept to none."""
    judged: int
    """Those that ended."""
    window_s: float
    missed: dict[str, int]
    """By limit: requests that did not keep to it; one request may miss several."""

    @property
    def share(self) -> float | None:
        return self.met / self.of if self.of else None

    @property
    def requests_per_s(self) -> float | None:
        return self.met / self.window_s if self.window_s > 0 else None


@dataclass(slots=True)
class GoodputCount:
    """Counts as requests end."""

    limits: Limits
    met: int = 0
    ended: int = 0
    missed: dict[str, int] = field(default_factory=dict)

    def add(self, ttft_s: float, gaps_s: Iterable[float], tpot_s: float, e2e_s: float) -> None:
        if not self.limits:
            return
        missed = self.limits.missed(ttft_s, max(gaps_s, default=0.0), tpot_s, e2e_s)
        self.ended += 1
        self.met += not missed
        for name in missed:
            self.missed[name] = self.missed.get(name, 0) + 1

    def result(self, *, failed: int, window_s: float) -> Goodput | None:
        """`failed` are those without an answer to judge."""
        if not self.limits:
            return None
        return Goodput(
            limits=self.limits,
            met=self.met,
            of=self.ended + failed,
            judged=self.ended,
            window_s=window_s,
            missed=dict(self.missed),
        )
