"""Is B better than A? Blocks of load in; one verdict a metric, its interval and a sentence out.

The value of a pair is ln(b / a): its two blocks share the weather, so that it cancels. Outliers
stay: a block's value is a median already, and a pair that is far off widens the interval.
`compare_judge` has the rules of a verdict, `compare_void` those of a void pair.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from math import exp, fsum, log
from types import MappingProxyType

from engine.core.comparing.design import FAMILY, MIN_PAIRS, Design
from engine.core.comparing.estimate import Estimate
from engine.core.comparing.flips import sign_flip_p
from engine.core.comparing.judge import Draft, Levels, judged, log_ratios, noise_floor
from engine.core.comparing.sentence import break_even, sentence
from engine.core.comparing.values import (
    METRICS,
    Arm,
    Block,
    BreakEven,
    Comparison,
    Metric,
    Outcome,
    Pair,
    Void,
)
from engine.core.comparing.void import sift, why_void

SCHEMA = "slotdeck.ab/1"
MIN_BLOCKS_APART = 3
"""Of each of two runs measured apart, for an interval."""
_EMPTY: Mapping[str, object] = MappingProxyType({})

RULES = {
    "value": "ln(b/a) of each pair's two blocks; a and b are geometric means over the valid pairs",
    "order": "ABBA: both orders in every two pairs, by a seeded coin which comes first",
    "ci95": "t-interval over the pairs; wider where there are several looks, that all err in 5 %",
    "looks": "Lan and DeMets' spending of O'Brien and Fleming's kind, exact critical t",
    "verdict": "from 6 valid pairs; the interval excludes 1, the ratio passes the noise floor, "
    "and in the family Holm's step passes; other metrics are verdicts for themselves",
    "noise_floor": "of A/A pairs: the larger of what their mean came to and its standard error",
    "smallest_detectable": "seen with 80 % probability, from the spread of these pairs",
    "permutation_p": "flips of the pairs' signs: all to 16 pairs, above that 9,999 seeded draws",
    "percentiles": "p90 from 50 requests a block, p99 from 500",
    "void": "errors, no requests, client limited, throttled, or a clock more than 5 % below its "
    "partner's against the usual; outliers are kept",
}
RULES_APART = {
    "value": "ln of each block; a and b are geometric means over each run's blocks",
    "ci95": "Welch's t-interval, from 3 blocks of each run",
    "weaker": "whatever changed between the two runs counts as a difference, and blocks of one "
    "run are less independent than pairs",
} | {rule: RULES[rule] for rule in ("smallest_detectable", "percentiles")}


def compare(
    pairs: Sequence[Pair],
    *,
    a: Arm,
    b: Arm,
    design: Design | None = None,
    aa: Sequence[Pair] = (),
    final: bool = False,
    manifest: Mapping[str, object] = _EMPTY,
) -> Outcome:
    """May be called after every pair: between the planned looks it gives no verdict away.

    `aa` are pairs of A against itself; `final` says that no more pairs will come.
    """
    design = design or Design()
    valid, void = sift(pairs)
    aa_valid, aa_void = sift(aa, ("first", "second"))
    levels = Levels(design, len(valid), final)
    drafts = [
        _draft(valid, metric, noise_floor(aa_valid, metric), design.seed)
        for metric in _present([block for pair in valid for block in (pair.a, pair.b)])
    ]
    rows = judged(drafts, design.family, levels)
    even = _break_even(rows)
    return Outcome(
        a=a,
        b=b,
        comparisons=rows,
        pairs=len(pairs),
        void=void,
        noise_floor=_largest_floor(rows, design.family),
        break_even=even,
        sentence=sentence(a, b, rows, even, why=_why_silent(levels, void)),
        stop=_why_stop(rows, design, levels, void),
        aa_pairs=len(aa),
        aa_void=aa_void,
        manifest={**manifest, "statistics": {**RULES, "design": asdict(design)}},
    )


def compare_runs(
    run_a: Sequence[Block],
    run_b: Sequence[Block],
    *,
    a: Arm,
    b: Arm,
    family: Sequence[str] = FAMILY,
    manifest: Mapping[str, object] = _EMPTY,
) -> Outcome:
    """Two runs measured apart, such as two saved ones: weaker, and marked so."""
    sound_a, void_a = _sound(run_a, "A")
    sound_b, void_b = _sound(run_b, "B")
    blocks = [*sound_a, *sound_b] if sound_a and sound_b else []
    drafts = [_draft_apart(sound_a, sound_b, metric) for metric in _present(blocks)]
    rows = judged(drafts, family, Levels(None, min(len(sound_a), len(sound_b))))
    even = _break_even(rows)
    return Outcome(
        a=a,
        b=b,
        comparisons=rows,
        pairs=0,
        void=(*void_a, *void_b),
        noise_floor=None,
        break_even=even,
        sentence=sentence(a, b, rows, even, why=_why_silent_apart(sound_a, sound_b), paired=False),
        stop=None,
        paired=False,
        manifest={**manifest, "statistics": {**RULES_APART, "family": list(family)}},
    )


def _present(blocks: Sequence[Block]) -> list[Metric]:
    named = {name for block in blocks for name in block.metrics}
    return [metric for metric in METRICS.values() if metric.name in named]


def _draft(valid: Sequence[Pair], metric: Metric, floor: float | None, seed: int) -> Draft:
    have = [p for p in valid if p.a.figure(metric) is not None and p.b.figure(metric) is not None]
    logs = log_ratios(have, metric)
    why = None
    if len(have) < len(valid):
        without = next(
            block for pair in valid for block in (pair.a, pair.b) if block.figure(metric) is None
        )
        why = without.why_missing(metric)
    return Draft(
        metric=metric,
        n=len(have),
        a=_centre([pair.a for pair in have], metric),
        b=_centre([pair.b for pair in have], metric),
        estimate=Estimate.of_pairs(logs) if len(have) >= MIN_PAIRS else None,
        permutation_p=sign_flip_p(logs, seed=seed),
        floor=floor,
        why=why,
    )


def _draft_apart(run_a: Sequence[Block], run_b: Sequence[Block], metric: Metric) -> Draft:
    have_a = [block for block in run_a if block.figure(metric) is not None]
    have_b = [block for block in run_b if block.figure(metric) is not None]
    n = min(len(have_a), len(have_b))
    why, estimate = None, None
    if n >= MIN_BLOCKS_APART:
        estimate = Estimate.of_runs(_logs(have_a, metric), _logs(have_b, metric))
    elif len(have_a) + len(have_b) < len(run_a) + len(run_b):
        without = next(one for one in (*run_a, *run_b) if one.figure(metric) is None)
        why = without.why_missing(metric)
    else:
        why = _why_silent_apart(have_a, have_b)
    return Draft(
        metric=metric,
        n=n,
        a=_centre(have_a, metric),
        b=_centre(have_b, metric),
        estimate=estimate,
        why=why,
    )


def _logs(blocks: Sequence[Block], metric: Metric) -> list[float]:
    figures = (block.figure(metric) for block in blocks)
    return [log(figure) for figure in figures if figure is not None]


def _centre(blocks: Sequence[Block], metric: Metric) -> float | None:
    logs = _logs(blocks, metric)
    return exp(fsum(logs) / len(logs)) if logs else None


def _sound(run: Sequence[Block], name: str) -> tuple[list[Block], list[Void]]:
    why = [why_void(block) for block in run]
    void = [Void(i + 1, f"{name}: {one}") for i, one in enumerate(why) if one is not None]
    return [block for block, one in zip(run, why, strict=True) if one is None], void


def _largest_floor(rows: Sequence[Comparison], family: Sequence[str]) -> float | None:
    told = [row for row in rows if row.noise_floor is not None]
    floors = [row.noise_floor or 0.0 for row in told if row.name in family]
    return max(floors or [row.noise_floor or 0.0 for row in told], default=None)


def _break_even(rows: Sequence[Comparison]) -> BreakEven | None:
    """Of the figures as printed, where both have a verdict."""
    by_name = {row.name: row for row in rows}
    ttft, tpot = by_name.get("ttft_ms"), by_name.get("tpot_ms")
    if ttft is None or tpot is None or not (ttft.differs and tpot.differs):
        return None
    if ttft.ci95 is None or tpot.ci95 is None or not (ttft.a and ttft.b and tpot.a and tpot.b):
        return None
    first, each = _rounded(ttft.a), _rounded(tpot.a)
    even = break_even(first, each, _rounded(ttft.b), _rounded(tpot.b))
    if even is None:
        return None
    corners = [
        corner.tokens
        for of_ttft in ttft.ci95
        for of_tpot in tpot.ci95
        if (corner := break_even(first, each, first * of_ttft, each * of_tpot)) is not None
    ]
    return replace(even, between=(min(corners), max(corners)))


def _why_silent(levels: Levels, void: Sequence[Void]) -> str | None:
    if levels.of() is not None:
        return None
    why = levels.why_none()
    if not void:
        return why
    number = "1 is void" if len(void) == 1 else f"{len(void)} are void"
    return f"{why}; {number}, the first because of {void[0].why}"


def _why_silent_apart(run_a: Sequence[Block], run_b: Sequence[Block]) -> str | None:
    if len(run_a) == len(run_b) == 1:
        return "one run each: no interval"
    if min(len(run_a), len(run_b)) >= MIN_BLOCKS_APART:
        return None
    return (
        f"{len(run_a)} and {len(run_b)} blocks, an interval needs {MIN_BLOCKS_APART} of each run"
    )


def _why_stop(
    rows: Sequence[Comparison], design: Design, levels: Levels, void: Sequence[Void]
) -> str | None:
    asked = [row for row in rows if row.name in design.family]
    if asked and all(row.differs for row in asked):
        return f"every question is answered after {levels.valid} valid pairs"
    if levels.valid >= design.pairs:
        return f"all {design.pairs} planned pairs are done"
    if len(void) >= design.pairs:
        return f"{len(void)} pairs were void, the first because of {void[0].why}"
    return "it was ended" if levels.final else None


def outcome_json(outcome: Outcome) -> dict[str, object]:
    """The `slotdeck.ab/1` object; unknown values are None."""
    even = outcome.break_even
    return {
        "schema": SCHEMA,
        "arms": {"a": outcome.a.name, "b": outcome.b.name},
        "metrics": [_row_json(row) for row in outcome.comparisons],
        "pairs": outcome.pairs,
        "void": [_void_json(one) for one in outcome.void],
        "noise_floor": _known(outcome.noise_floor),
        "aa": {"pairs": outcome.aa_pairs, "void": [_void_json(one) for one in outcome.aa_void]},
        "break_even": None if even is None else asdict(even),
        "sentence": outcome.sentence,
        "stop": outcome.stop,
        "paired": outcome.paired,
        "manifest": dict(outcome.manifest),
    }


def _row_json(row: Comparison) -> dict[str, object]:
    return {
        "name": row.name,
        "unit": row.metric.unit,
        "better": row.metric.better.value,
        "a": _known(row.a),
        "b": _known(row.b),
        "ratio": _known(row.ratio),
        "ci95": None if row.ci95 is None else [_rounded(end) for end in row.ci95],
        "verdict": row.verdict.value,
        "smallest_detectable": _known(row.smallest_detectable),
        "n": row.n,
        "permutation_p": _known(row.permutation_p),
        "noise_floor": _known(row.noise_floor),
        "why": row.why,
    }


def _void_json(void: Void) -> dict[str, object]:
    return {"pair": void.pair, "why": void.why}


def _known(value: float | None) -> float | None:
    return None if value is None else _rounded(value)


def _rounded(value: float) -> float:
    """Six digits: more than any run can repeat."""
    return float(f"{value:.6g}")
