"""Successive halving under noise: many candidates a little, few ones enough to tell them apart.

A round measures every candidate that is left, once each, in an order drawn anew: what the machine
does meanwhile is nearly the same for all of a round, and cancels in the ratio of two of them.
After each stage the slower half goes. That is a choice and no verdict: who went early may have
been unlucky. The last stage then measures its few from scratch, and only those rounds judge: a
finalist is worse if a one-sided t-test over the rounds' log-ratios finds any other one better, at
5 % shared out over all others. The truly best finalist therefore stays with 95 % probability,
whichever looked best, and all that stay with it are the plateau: they cannot be told from it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, exp, inf, log, sqrt
from statistics import fmean, stdev

from engine.core.comparing.design import coin_words
from engine.core.comparing.student import critical_t

LEVEL = 0.05
FINALISTS = 4
EARLY_ROUNDS = 2
FINAL_ROUNDS = 6
NEAR = 0.95
MIN_FINAL_ROUNDS = 3
"""Below, no t-test has a chance."""


@dataclass(slots=True)
class Seen:
    """What is known of one candidate."""

    number: int
    logs: list[float] = field(default_factory=list)
    """ln of its value in each round that it was in."""
    final: list[float] = field(default_factory=list)
    """Of those, the last stage's."""
    failed: str | None = None
    left_after: int | None = None
    """The round after which it went with the slower half."""

    @property
    def is_in(self) -> bool:
        return self.failed is None and self.left_after is None


@dataclass(frozen=True, slots=True)
class Standing:
    """Of one candidate at the end."""

    number: int
    rounds: int
    value: float | None
    """Geometric mean of what it was judged by; None where it was never measured."""
    against_best: float | None
    """Its value over the best looking finalist's, in the rounds that both were in."""
    on_plateau: bool
    why: str


@dataclass(slots=True)
class Search:
    """`simplicity` of a candidate is its place: the first is the simplest. Larger values win."""

    candidates: int
    seed: int = 0
    finalists: int = FINALISTS
    final_rounds: int = FINAL_ROUNDS
    rounds: int = 0
    _seen: list[Seen] = field(init=False)
    _in_stage: int = 0
    _final: bool = False
    _coins: Iterator[int] = field(init=False)

    def __post_init__(self) -> None:
        self._coins = coin_words(self.seed)
        self._seen = [Seen(number) for number in range(self.candidates)]
        self._final = self.candidates <= self.finalists

    @property
    def left(self) -> tuple[int, ...]:
        return tuple(one.number for one in self._seen if one.is_in)

    @property
    def is_final(self) -> bool:
        return self._final

    def next_round(self) -> tuple[int, ...]:
        """Whom to measure now, in this order; empty when all has been asked."""
        left = self.left
        if not left or (self._final and (len(left) == 1 or self._in_stage == self.final_rounds)):
            # The only one that can be measured at all still has to be, once.
            return left if left and not self._seen[left[0]].logs else ()
        return tuple(number for _, number in sorted((next(self._coins), one) for one in left))

    def most_rounds(self) -> tuple[int, int]:
        """Rounds and measurements that are still to come, if nobody fails."""
        left, rounds, blocks = len(self.left), 0, 0
        final, done = self._final, self._in_stage
        while not final:
            rounds, blocks = rounds + EARLY_ROUNDS - done, blocks + (EARLY_ROUNDS - done) * left
            left, done = self._half(left), 0
            final = left <= self.finalists
        if left > 1:
            rounds, blocks = (
                rounds + self.final_rounds - done,
                blocks + (self.final_rounds - done) * left,
            )
        return rounds, blocks

    def record(self, values: Mapping[int, float | str]) -> None:
        """One whole round; a text is why a candidate could not be measured: it is out."""
        self.rounds += 1
        self._in_stage += 1
        for number, value in values.items():
            seen = self._seen[number]
            if isinstance(value, str) or not 0 < value < inf:
                seen.failed = value if isinstance(value, str) else "it got nothing done"
                continue
            seen.logs.append(log(value))
            if self._final:
                seen.final.append(log(value))
        if not self._final and self._in_stage == EARLY_ROUNDS:
            self._drop()

    def _half(self, left: int) -> int:
        return max(ceil(left / 2), min(left, self.finalists))

    def _drop(self) -> None:
        ranked = sorted(
            (one for one in self._seen if one.is_in),
            key=lambda one: (-fmean(one.logs), one.number),
        )
        for seen in ranked[self._half(len(ranked)) :]:
            seen.left_after = self.rounds
        self._in_stage = 0
        self._final = len(self.left) <= self.finalists

    def standings(self) -> tuple[Standing, ...]:
        """The plateau first, by simplicity, then the others by value; at any time."""
        best = self._best()
        told = [self._standing(one, best) for one in self._seen]
        return tuple(sorted(told, key=lambda one: (not one.on_plateau, _rank(one), one.number)))

    def _best(self) -> Seen | None:
        """The best looking one of those that went farthest."""
        able = [one for one in self._seen if one.is_in and one.logs]
        return max(able, key=lambda one: (fmean(one.final or one.logs), -one.number), default=None)

    def _standing(self, seen: Seen, best: Seen | None) -> Standing:
        judged_by = seen.final or seen.logs
        value = exp(fmean(judged_by)) if judged_by else None
        ratio = None
        if best is not None and seen.logs:
            both = min(len(seen.logs), len(best.logs))
            if seen.final and best.final:
                ratio = exp(fmean(seen.final) - fmean(best.final))
            elif both:
                ratio = exp(fmean(seen.logs[:both]) - fmean(best.logs[:both]))
        why, on_plateau = self._why(seen, best)
        return Standing(seen.number, len(seen.logs), value, ratio, on_plateau, why)

    def _why(self, seen: Seen, best: Seen | None) -> tuple[str, bool]:
        if seen.failed is not None:
            return seen.failed, False
        if seen.left_after is not None:
            return f"in the slower half after round {seen.left_after}: left out, not judged", False
        if not seen.logs:
            return "in no whole round", False
        others = [one for one in self._seen if one.is_in and one is not seen and one.logs]
        if not others:
            return "the only one that is left", True
        if not self._final or len(seen.final) < MIN_FINAL_ROUNDS:
            return "not told apart: the search ended before its last stage had 3 rounds", False
        if beaten := [one for one in others if self._is_better(one, seen, len(others))]:
            by = max(beaten, key=lambda one: fmean(one.final))
            more = exp(fmean(by.final) - fmean(seen.final)) - 1
            return f"worse: another finalist does {more:.1%} more, and that is no luck", False
        if seen is best:
            return "on the plateau: looks best", True
        return "on the plateau: cannot be told from the best", True

    def _is_better(self, one: Seen, other: Seen, others: int) -> bool:
        ratios = [a - b for a, b in zip(one.final, other.final, strict=True)]
        if len(ratios) < MIN_FINAL_ROUNDS:
            return False
        spread = stdev(ratios)
        mean = fmean(ratios)
        if spread == 0:
            return mean > 0
        t = mean / spread * sqrt(len(ratios))
        # Two-sided tables: a one-sided share s is theirs of 2 s.
        return t > critical_t(2 * LEVEL / others, len(ratios) - 1)


def _rank(one: Standing) -> float:
    if one.on_plateau:
        return one.number
    return inf if one.against_best is None else -one.against_best


def winner(standings: Sequence[Standing]) -> Standing | None:
    """The simplest on the plateau that also looks near the best; None without a plateau.

    Few rounds make a wide plateau: what looks much worse is no good choice, proof or not.
    """
    return next(
        (one for one in standings if one.on_plateau and (one.against_best or 0.0) >= NEAR), None
    )
