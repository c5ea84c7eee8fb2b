"""The design of a comparison, fixed before its first block: how many pairs, in which order."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from engine.core.comparing.looks import levels_at
from engine.core.comparing.values import METRICS

MIN_PAIRS = 6
"""With 5, no way to flip their signs is rarer than 2 in 32, which is more than 5 %."""
FAMILY = ("ttft_ms", "tpot_ms", "output_tokens_per_s")
LEVEL = 0.05
_WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Design:
    """What must not depend on what is then seen."""

    pairs: int = 10
    """Valid ones, at most."""
    looks: tuple[int, ...] = (6, 8, 10)
    """Numbers of valid pairs after which the comparison may stop; the last is `pairs`."""
    family: tuple[str, ...] = FAMILY
    """The metrics whose verdicts hold together: in at most 5 % of comparisons of equal arms does
    any of them find a difference. Other metrics are verdicts for themselves."""
    seed: int = 0

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in pairwise(self.looks))
        if not self.looks or not rising or self.looks[0] < MIN_PAIRS:
            raise ValueError(f"looks must rise, from {MIN_PAIRS} pairs or more, not {self.looks}")
        if self.looks[-1] != self.pairs:
            raise ValueError(f"the last look is after all {self.pairs} pairs, not {self.looks}")
        unknown = [name for name in self.family if name not in METRICS]
        if unknown:
            raise ValueError(f"there is no metric {unknown[0]!r}")

    @classmethod
    def of(cls, pairs: int, *, early: bool = True, seed: int = 0) -> "Design":
        """A look after each whole ABBA block from 6 pairs on, or one look at the end."""
        early_looks = range(MIN_PAIRS, pairs, 2) if early else ()
        return cls(pairs=pairs, looks=(*early_looks, pairs), seed=seed)

    def orders(self, count: int | None = None) -> tuple[str, ...]:
        return orders(self.pairs if count is None else count, self.seed)

    def next_look(self, valid: int) -> int | None:
        return next((look for look in self.looks if look > valid), None)

    def level_after(self, valid: int, level: float, *, final: bool = False) -> float | None:
        """Of the two-sided t-test now due, so that all looks together keep to `level`.

        None between looks, unless this is the end: a run that was broken off gets what was planned
        to be spent by now, one that overran its last look gets the rest.
        """
        if valid < MIN_PAIRS or not (final or valid in self.looks or valid > self.pairs):
            return None
        earlier = tuple(look for look in self.looks if look < min(valid, self.pairs))
        return levels_at((*earlier, valid), self.pairs, level)[-1]


def orders(pairs: int, seed: int) -> tuple[str, ...]:
    """ "AB" or "BA" for each pair: in every two pairs both, by a coin which comes first.

    So a drift falls on both arms alike (ABBA), and one with a period cannot keep step with us.
    """
    coins = coin_words(seed)
    found: list[str] = []
    while len(found) < pairs:
        found += ("AB", "BA") if next(coins) & 1 else ("BA", "AB")
    return tuple(found[:pairs])


def coin_words(seed: int) -> Iterator[int]:
    """64 random bits at a time (splitmix64): the same on every machine and Python."""
    state = seed & _WORD
    while True:
        state = (state + 0x9E3779B97F4A7C15) & _WORD
        word = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
        yield word ^ (word >> 31)
