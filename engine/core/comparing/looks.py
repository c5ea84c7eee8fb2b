"""When a comparison may stop early, and how sure it must be then, so that 5 % stay 5 %.

Whoever looks after 6, 8 and 10 pairs at an ordinary 95 % interval and stops at the first one that
excludes "equal" is wrong in nearly 10 % of comparisons, not in 5. So each planned look may spend a
part of the 5 %, by Lan and DeMets' function of O'Brien and Fleming's kind: next to nothing early,
nearly all at the end. What a look has to spend fixes its critical t.

The critical values are exact for normal log-ratios of unknown spread. With S the sum and Q the sum
of squares of n log-ratios, r = S / sqrt(n Q) is a cosine, t^2 = (n - 1) r^2 / (1 - r^2), and where
there is no difference r does not depend on Q (the direction of a normal vector says nothing about
its length). One more pair therefore turns r into

    r' = sqrt(n / (n + 1)) r cos(phi) + sqrt(1 / (n + 1)) sin(phi)

with an angle phi that depends on nothing before it and has a density proportional to cos^(n-1).
So the r are a Markov chain on one line, and its density, cut off at each look, is carried from
pair to pair by one integral over phi.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from math import asin, atan2, cos, exp, lgamma, pi, sin, sqrt

from engine.core.comparing.student import critical_t, normal_critical, normal_tail, two_tails

_GRID = 128
"""Points of the density, evenly over an angle; twice as many move no critical t by 2e-4, up to 80
pairs."""


def spent(share: float, level: float) -> float:
    """Of `level`, what may be gone when this share of the planned pairs has been seen."""
    if share >= 1:
        return level
    return 4 * normal_tail(normal_critical(level / 2) / sqrt(share))


@lru_cache(maxsize=256)
def levels_at(looks: tuple[int, ...], planned: int, level: float) -> tuple[float, ...]:
    """The two-sided level of a t-test at each of `looks`, given that the ones before passed by.

    `looks` are numbers of pairs, rising; `planned` is the number at which all may be spent.
    """
    first = looks[0]
    before = spent(first / planned, level)
    levels = [before]
    if len(looks) == 1:
        return tuple(levels)
    density = _Density.of_first(first)
    cut = _cosine(critical_t(before, first - 1), first)
    for earlier, later in pairwise(looks):
        for pairs in range(earlier, later):
            density = density.one_pair_more(pairs, cut)
            cut = density.reach
        now = spent(later / planned, level)
        cut = density.cut_with_tail((now - before) / 2)
        levels.append(two_tails(cut * sqrt((later - 1) / (1 - cut * cut)), later - 1))
        before = now
    return tuple(levels)


def _cosine(t: float, pairs: int) -> float:
    return t / sqrt(pairs - 1 + t * t)


class _Density:
    """Of r on 0 to `reach` (it is even), at r = reach * sin(angle) for evenly spread angles."""

    def __init__(self, reach: float, values: list[float]) -> None:
        self.reach = reach
        self._values = values
        self._step = pi / 2 / _GRID

    @classmethod
    def of_first(cls, pairs: int) -> "_Density":
        """Nothing was cut off yet: proportional to (1 - r^2)^((pairs - 3) / 2)."""
        scale = exp(lgamma(pairs / 2) - lgamma((pairs - 1) / 2)) / sqrt(pi)
        angles = [index * pi / 2 / _GRID for index in range(_GRID + 1)]
        return cls(1.0, [scale * max(0.0, cos(a)) ** (pairs - 3) for a in angles])

    def one_pair_more(self, pairs: int, cut: float) -> "_Density":
        """The density after the next pair, of what lay within `cut`."""
        keeps, adds = sqrt(pairs / (pairs + 1)), sqrt(1 / (pairs + 1))
        reach = min(1.0, sqrt((keeps * cut) ** 2 + adds * adds))
        middle = atan2(adds, keeps * cut)
        scale = exp(lgamma((pairs + 1) / 2) - lgamma(pairs / 2)) / sqrt(pi) / keeps
        widest = min(pi / 2, 8 / sqrt(pairs))  # cos^pairs is nothing beyond.
        values = []
        for index in range(_GRID + 1):
            angle = index * self._step
            target = reach * sin(angle)
            half = pi / 2 - angle
            # Where the r that leads to `target` lies within the cut.
            low = max(middle - half, half - middle - pi, -widest)
            high = min(middle + half, pi - half - middle, widest)
            values.append(
                scale * _integral(self._arrivals(target, pairs, keeps, adds), low, high)
                if high > low
                else 0.0
            )
        return _Density(reach, values)

    def _arrivals(
        self, target: float, pairs: int, keeps: float, adds: float
    ) -> Callable[[float], float]:
        def at(phi: float) -> float:
            cosine = cos(phi)
            return cosine ** (pairs - 2) * self((target - adds * sin(phi)) / (keeps * cosine))

        return at

    def __call__(self, r: float) -> float:
        """By the cubic through the four points around it."""
        place = asin(min(1.0, abs(r) / self.reach)) / self._step
        at = min(max(int(place) - 1, 0), _GRID - 3)
        x = place - at
        f0, f1, f2, f3 = self._values[at : at + 4]
        return (f3 * x * (x - 1) * (x - 2) - f0 * (x - 1) * (x - 2) * (x - 3)) / 6 + (
            f1 * x * (x - 2) * (x - 3) - f2 * x * (x - 1) * (x - 3)
        ) / 2

    def cut_with_tail(self, tail: float) -> float:
        """The r beyond which this much lies, on one side."""

        def slope(angle: float) -> float:
            return self(self.reach * sin(angle)) * self.reach * cos(angle)

        low, high = 0.0, pi / 2
        for _ in range(50):
            middle = (low + high) / 2
            if _integral(slope, middle, pi / 2) > tail:
                low = middle
            else:
                high = middle
        return self.reach * sin(low)


_HALF_NODES = (
    (0.0950125098376374, 0.1894506104550685),
    (0.2816035507792589, 0.1826034150449236),
    (0.4580167776572274, 0.1691565193950025),
    (0.6178762444026438, 0.1495959888165767),
    (0.7554044083550030, 0.1246289712555339),
    (0.8656312023878318, 0.0951585116824928),
    (0.9445750230732326, 0.0622535239386479),
    (0.9894009349916499, 0.0271524594117541),
)
"""Gauss and Legendre's 16 points on -1 to 1 and their weights; the other half are mirrored."""


def _integral(height: Callable[[float], float], low: float, high: float) -> float:
    quarter = (high - low) / 4
    return quarter * sum(
        weight * (height(centre - quarter * node) + height(centre + quarter * node))
        for centre in (low + quarter, high - quarter)
        for node, weight in _HALF_NODES
    )
