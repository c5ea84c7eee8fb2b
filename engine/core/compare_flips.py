"""A p value that trusts no bell curve: what if each pair's arms had been named the other way?"""

from collections.abc import Sequence
from math import fsum

from engine.core.compare_design import coin_words

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
        sums = [log_ratios[0]]
        for one in log_ratios[1:]:
            sums = [total + one for total in sums] + [total - one for total in sums]
        return sum(abs(total) >= bar for total in sums) / len(sums)
    coins = _Coins(seed)
    far = 0
    for _ in range(DRAWS):
        total = 0.0
        for one in log_ratios:
            total += one if coins.toss() else -one
        far += abs(total) >= bar
    return (far + 1) / (DRAWS + 1)  # Ours is one of the patterns.


class _Coins:
    def __init__(self, seed: int) -> None:
        self._words = coin_words(seed)
        self._bits = 1

    def toss(self) -> int:
        if self._bits == 1:  # A leading one marks the end of the word.
            self._bits = next(self._words) | 1 << 64
        bit = self._bits & 1
        self._bits >>= 1
        return bit
