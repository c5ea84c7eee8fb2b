"""A p value that trusts no bell curve: what if each pair's arms had been named the other way?"""

from collections.abc import Iterator, Sequence
from math import fsum

from engine.core.comparing.design import coin_words

EXACT_UP_TO = 16
"""Pairs: half of 2^16 sign patterns take milliseconds (the other half mirrors them)."""
DRAWS = 9_999


def sign_flip_p(log_ratios: Sequence[float], *, seed: int = 0) -> float | None:
    """Share of sign patterns whose sum lies as far from zero as the one seen, or farther.

    Where nothing differs, every pattern was as likely as ours. Its least value is 2 / 2^n.
    """
    count = len(log_ratios)
    if not count:
        return None
    # Sums that are equal but for rounding count as equal.
    bar = abs(fsum(log_ratios)) - 1e-12 * fsum(abs(one) for one in log_ratios)
    if count <= EXACT_UP_TO:
        first, *others = log_ratios
        sums = _all_sums(others)
        return sum(abs(first + total) >= bar for total in sums) / len(sums)
    # Eight pairs at a time: one byte of coins picks the sum of their signs.
    tables = [_all_sums(log_ratios[at : at + 8]) for at in range(0, count, 8)]
    coins = _coin_bytes(seed)
    far = 0
    for _ in range(DRAWS):
        total = sum(table[next(coins) & len(table) - 1] for table in tables)
        far += abs(total) >= bar
    return (far + 1) / (DRAWS + 1)  # Ours is one of the patterns.


def _all_sums(values: Sequence[float]) -> list[float]:
    """Under every pattern of signs."""
    sums = [0.0]
    for one in values:
        sums = [total + one for total in sums] + [total - one for total in sums]
    return sums


def _coin_bytes(seed: int) -> Iterator[int]:
    for word in coin_words(seed):
        yield from word.to_bytes(8, "little")
