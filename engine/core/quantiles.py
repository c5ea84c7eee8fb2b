"""Means and percentiles that stay unknown where the samples are too few to tell."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MIN_SAMPLES_P90 = 50
MIN_SAMPLES_P99 = 500


@dataclass(frozen=True, slots=True)
class Summary:
    """Of one quantity; None is "too few samples to say", never zero.

    TTFT, TPOT and end-to-end have one sample a request, so that their rule is a number of
    requests; ITL has one sample a gap between pieces, so that its rule is a number of gaps.
    """

    count: int
    mean: float | None
    p50: float | None
    p90: float | None
    """Only from 50 samples: below, it is one of the five largest by luck."""
    p99: float | None
    """Only from 500 samples."""

    def why_missing(self, noun: str) -> str | None:
        """The reason for the first dash, or None when every figure is there."""
        if self.count == 0:
            return f"no {noun}"
        if self.p90 is None:
            return f"p90 needs {MIN_SAMPLES_P90} {noun}, there were {self.count}"
        if self.p99 is None:
            return f"p99 needs {MIN_SAMPLES_P99} {noun}, there were {self.count}"
        return None


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Linear interpolation between order statistics (Hyndman and Fan's type 7, numpy's default).

    With n samples x[0] <= ... <= x[n-1] and h = (n - 1) * share, it is
    x[floor h] + (h - floor h) * (x[floor h + 1] - x[floor h]). `ordered` must be sorted.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"a share lies between 0 and 1, not at {share}")
    if not ordered:
        return None
    position = (len(ordered) - 1) * share
    below = math.floor(position)
    low = ordered[below]
    if below + 1 == len(ordered):
        return low
    high = ordered[below + 1]
    # The sum can pass `high` by its last bit.
    return min(low + (position - below) * (high - low), high)


def summarize(samples: Iterable[float]) -> Summary:
    ordered = sorted(samples)
    count = len(ordered)
    return Summary(
        count=count,
        mean=math.fsum(ordered) / count if count else None,
        p50=percentile(ordered, 0.50),
        p90=percentile(ordered, 0.90) if count >= MIN_SAMPLES_P90 else None,
        p99=percentile(ordered, 0.99) if count >= MIN_SAMPLES_P99 else None,
    )
