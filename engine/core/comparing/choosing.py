"""Which arm to keep: one that is better in something and worse in nothing."""

from collections.abc import Sequence

from engine.core.comparing.values import Outcome, Verdict

Won = tuple[tuple[str, str], tuple[str | None, str]]
"""The two arms of a comparison; which one won, or None, and why."""


def winner(outcome: Outcome, family: Sequence[str]) -> tuple[str | None, str]:
    """The name of the arm that wins among the family's metrics, and why; None for neither."""
    rows = [row for row in outcome.comparisons if row.name in family]
    better = [row.metric.words for row in rows if row.verdict is Verdict.BETTER]
    worse = [row.metric.words for row in rows if row.verdict is Verdict.WORSE]
    a, b = outcome.a.name, outcome.b.name
    if better and worse:
        return None, f"{b} is better in {_listed(better)} and worse in {_listed(worse)}"
    if better:
        return b, f"{b} is better in {_listed(better)} and worse in nothing"
    if worse:
        return a, f"{a} is better in {_listed(worse)} and worse in nothing"
    return None, "no difference was seen between them"


def winner_of_all(results: Sequence[Won]) -> tuple[str | None, str]:
    """Of several comparisons: the arm that wins each one that it takes part in."""
    if len(results) == 1:
        return results[0][1]
    for arm in dict.fromkeys(name for pair, _ in results for name in pair):
        mine = [won for pair, won in results if arm in pair]
        if all(name == arm for name, _ in mine):
            return arm, "; ".join(why for _, why in mine)
    open_ones = [why for _, (name, why) in results if name is None]
    return None, "; ".join(open_ones) or "each of them loses to another one"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(words)
