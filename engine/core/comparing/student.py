"""Student's t without a numerical library: tails, quantiles, power; and the normal tail."""

from collections.abc import Callable
from functools import lru_cache
from math import erfc, exp, isinf, lgamma, log, log1p, sqrt

_TINY = 1e-300
_PANELS = 400


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x))
    # The fraction converges fast on this side of the mean; I_x(a, b) = 1 - I_{1-x}(b, a).
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1.0 - front * _fraction(b, a, 1.0 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """Lentz's method; about sqrt(max(a, b)) turns are enough."""
    c, d = 1.0, _safe(1.0 - (a + b) * x / (a + 1))
    d = 1 / d
    value = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _safe(1 + term * d)
            c = _safe(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def _safe(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def two_tails(t: float, df: float) -> float:
    """P(|T| >= |t|), right to the last digits however small it is."""
    if isinf(t):
        return 0.0
    return incomplete_beta(df / 2, 0.5, df / (df + t * t))


@lru_cache(maxsize=4096)
def critical_t(level: float, df: float) -> float:
    """The t that |T| passes with probability `level`: 2.262 for 5 % and 9 degrees of freedom."""
    if not 0 < level < 1:
        raise ValueError(f"a level lies between 0 and 1, not at {level}")
    high = 1.0
    while two_tails(high, df) > level:
        high *= 2
    return _root(lambda t: two_tails(t, df) - level, 0.0, high)


def normal_tail(z: float) -> float:
    """P(Z >= z)."""
    return erfc(z / sqrt(2)) / 2


@lru_cache(maxsize=256)
def normal_critical(level: float) -> float:
    """The z that |Z| passes with probability `level`: 1.960 for 5 %."""
    return _root(lambda z: 2 * normal_tail(z) - level, 0.0, 40.0)


def power(shift: float, level: float, df: int) -> float:
    """P(|T| >= critical) when the mean lies `shift` true standard errors from zero.

    T is noncentral: (Z + shift) / v, with v the spread that was seen over the true one, so this is
    the normal tail averaged over v, whose square times df has a chi-squared law.
    """
    critical = critical_t(level, df)
    top = 1 + 9 / sqrt(df)
    step = top / _PANELS
    scale = log(2) + df / 2 * log(df / 2) - lgamma(df / 2)
    total = 0.0
    for panel in range(1, _PANELS + 1):
        v = panel * step
        density = exp(scale + (df - 1) * log(v) - df * v * v / 2)
        passes = normal_tail(critical * v - shift) + normal_tail(critical * v + shift)
        total += (1 if panel == _PANELS else 4 if panel % 2 else 2) * density * passes
    if df == 1:  # The density at v = 0 is zero for every other df.
        total += exp(scale) * (normal_tail(-shift) + normal_tail(shift))
    return total * step / 3


@lru_cache(maxsize=512)
def detectable_shift(level: float, df: int, wanted: float = 0.80) -> float:
    """How many standard errors from zero a mean must lie to be seen with this probability."""
    high = 4.0
    while power(high, level, df) < wanted:
        high *= 2
    return _root(lambda shift: wanted - power(shift, level, df), 0.0, high)


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses zero, by halving: slow, sure, and right to the last bit."""
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
