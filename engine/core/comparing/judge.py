"""From estimates to verdicts: the looks, the noise floor, and several metrics at once.

The rules of a verdict, in this order:

1. fewer than 6 valid pairs, or no look due: not enough; neither is an early look that is blind to
   all but absurd differences
2. the 95 % interval holds "equal": no difference
3. the difference lies within the noise floor, what A against itself came to: no difference
4. the metric is one of a family, and Holm's step for the family does not pass: no difference
5. else better or worse, as the metric's better direction says
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log

from engine.core.comparing.design import LEVEL, MIN_PAIRS, Design
from engine.core.comparing.estimate import Estimate
from engine.core.comparing.values import Better, Comparison, Metric, Pair, Verdict

MIN_AA_PAIRS = 2
_BLIND = log(1000)
"""A log-ratio. An early look at few of many planned pairs spends so little of the error that its
interval is wider than this: it says nothing."""


@dataclass(frozen=True, slots=True)
class Levels:
    """What a t-test may spend now, on one question or on each of several."""

    design: Design | None
    """None: runs measured apart, with one look."""
    valid: int
    final: bool = False

    def of(self, questions: int = 1) -> float | None:
        """None: no look is due."""
        level = LEVEL / questions
        if self.design is None:
            return level
        return self.design.level_after(self.valid, level, final=self.final)

    def why_none(self) -> str:
        """Why no look is due."""
        if self.valid < MIN_PAIRS or self.design is None:
            pairs = "1 valid pair" if self.valid == 1 else f"{self.valid} valid pairs"
            return f"{pairs}, at least {MIN_PAIRS} are needed"
        return f"the next look is after {self.design.next_look(self.valid)} valid pairs"


@dataclass(frozen=True, slots=True)
class Draft:
    """A row before it is judged."""

    metric: Metric
    n: int
    a: float | None = None
    b: float | None = None
    estimate: Estimate | None = None
    permutation_p: float | None = None
    floor: float | None = None
    """Of the log-ratio."""
    why: str | None = None
    """Why there is no estimate."""


def noise_floor(aa: Sequence[Pair], metric: Metric) -> float | None:
    """Of the log-ratio: what A against itself came to, or if that is more, its standard error.

    The first guards against a bias that all pairs share (two starts of one engine that differ for
    as long as they run), the second against an A/A that came out even by luck.
    """
    estimate = Estimate.of_pairs(log_ratios(aa, metric))
    if estimate is None:
        return None
    return max(abs(estimate.mean), estimate.error)


def log_ratios(pairs: Sequence[Pair], metric: Metric) -> list[float]:
    """Of the pairs in which both blocks have a figure."""
    both = ((pair.a.figure(metric), pair.b.figure(metric)) for pair in pairs)
    return [log(b) - log(a) for a, b in both if a is not None and b is not None]


def holm(estimates: Mapping[str, Estimate], levels: Levels) -> frozenset[str]:
    """Those that differ, such that even one of them is wrong in at most 5 % of comparisons.

    The smallest p must pass a level shared by all, the next one by those that are left, and so on.
    """
    passed: list[str] = []
    for name in sorted(estimates, key=lambda name: estimates[name].p):
        level = levels.of(len(estimates) - len(passed))
        if level is None or estimates[name].p > level:
            break
        passed.append(name)
    return frozenset(passed)


def judged(
    drafts: Sequence[Draft], family: Sequence[str], levels: Levels
) -> tuple[Comparison, ...]:
    """A row for each draft, in their order."""
    asked = {
        draft.metric.name: draft.estimate
        for draft in drafts
        if draft.estimate is not None and draft.metric.name in family
    }
    passed = holm(asked, levels)
    return tuple(_row(draft, asked, passed, levels) for draft in drafts)


def _row(
    draft: Draft,
    asked: Mapping[str, Estimate],
    passed: frozenset[str],
    levels: Levels,
) -> Comparison:
    estimate, floor, level = draft.estimate, draft.floor or 0.0, levels.of()
    questions = len(asked) if draft.metric.name in asked else 1
    shared = levels.of(questions)
    verdict, why, interval, detectable = Verdict.NOT_ENOUGH, draft.why, None, None
    if level is None:
        why = levels.why_none()
    elif estimate is not None and shared is not None:
        interval = estimate.interval(level)
        detectable = estimate.detectable(shared, floor)
        verdict = Verdict.NO_DIFFERENCE
        seen = estimate.p <= level
        if not seen and detectable > _BLIND:
            verdict = Verdict.NOT_ENOUGH
            why = "so far only a difference of over 1,000 times could have been seen"
        elif seen and abs(estimate.mean) <= floor:
            why = "within what A against itself came to"
        elif seen and questions > 1 and draft.metric.name not in passed:
            why = f"sure enough alone, not as one of {questions} questions (Holm)"
        elif seen:
            lower = draft.metric.better is Better.LOWER
            verdict = Verdict.BETTER if (estimate.mean < 0) == lower else Verdict.WORSE
        if detectable > _BLIND:  # nor would a float hold them
            interval = detectable = None
    ratio = None
    if draft.a is not None and draft.b is not None:
        ratio = draft.b / draft.a if estimate is None else exp(estimate.mean)
    return Comparison(
        metric=draft.metric,
        n=draft.n,
        a=draft.a,
        b=draft.b,
        ratio=ratio,
        ci95=None if interval is None else (exp(interval[0]), exp(interval[1])),
        verdict=verdict,
        smallest_detectable=None if detectable is None else exp(detectable) - 1,
        permutation_p=draft.permutation_p,
        noise_floor=None if draft.floor is None else exp(draft.floor) - 1,
        why=why,
    )
