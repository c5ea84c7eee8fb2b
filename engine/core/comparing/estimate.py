"""A mean log-ratio, its standard error, and what a t-test makes of the two."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, sqrt

from engine.core.comparing.student import critical_t, detectable_shift, two_tails

_SAME = 1e-12
"""Rounding moves a log-ratio by less."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean log-ratio and its standard error."""

    mean: float
    error: float
    df: float

    @classmethod
    def of_pairs(cls, log_ratios: Sequence[float]) -> "Estimate | None":
        """None with fewer than two: one pair has no spread."""
        count = len(log_ratios)
        if count < 2:
            return None
        return cls(mean_of(log_ratios), sqrt(_variance(log_ratios) / count), count - 1)

    @classmethod
    def of_runs(cls, a: Sequence[float], b: Sequence[float]) -> "Estimate":
        """Welch's, of the logs of two runs' blocks."""
        of_a, of_b = _variance(a) / len(a), _variance(b) / len(b)
        both = of_a + of_b
        df = float(len(a) + len(b) - 2)
        if both > 0:
            df = both**2 / (of_a**2 / (len(a) - 1) + of_b**2 / (len(b) - 1))
        return cls(mean_of(b) - mean_of(a), sqrt(both), df)

    @property
    def p(self) -> float:
        if abs(self.mean) <= _SAME:
            return 1.0
        return two_tails(self.mean / self.error, self.df) if self.error > 0 else 0.0

    def interval(self, level: float) -> tuple[float, float]:
        """Of the log-ratio; it misses the truth with probability `level`."""
        reach = critical_t(level, self.df) * self.error
        return self.mean - reach, self.mean + reach

    def detectable(self, level: float, floor: float) -> float:
        """The log-ratio that passes both the interval and the floor with 80 % probability."""
        by_interval = detectable_shift(level, self.df) * self.error
        return max(by_interval, floor + critical_t(0.4, self.df) * self.error if floor else 0.0)


def mean_of(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    middle = mean_of(values)
    return fsum((one - middle) ** 2 for one in values) / (len(values) - 1)
