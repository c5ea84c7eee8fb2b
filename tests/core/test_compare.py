"""From blocks to verdicts: the laws of a comparison, and each rule of the list."""

import json
import random
from dataclasses import replace
from math import exp, log

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.core.compare import compare, compare_runs, outcome_json
from engine.core.comparing.design import Design
from engine.core.comparing.values import (
    METRICS,
    Arm,
    Better,
    Comparison,
    Outcome,
    Pair,
    Verdict,
    latency_figures,
    rate_figures,
)
from engine.core.quantiles import summarize
from tests.core.compared import (
    ONE_CARD,
    TWO_CARDS,
    WOBBLE,
    A,
    B,
    block,
    pair,
    pairs_of,
    published,
    swapped,
)

log_ratios = st.lists(
    st.floats(-0.3, 0.3).map(lambda value: round(value, 4)), min_size=6, max_size=12
)
OPPOSITE = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}


def at_once(count: int) -> Design:
    return Design.of(count, early=False)


def result(pairs: list[Pair], *, aa: list[Pair] | None = None) -> Outcome:
    return compare(pairs, a=A, b=B, design=at_once(max(6, len(pairs))), aa=aa or [])


def only(pairs: list[Pair], *, aa: list[Pair] | None = None) -> Comparison:
    (row,) = result(pairs, aa=aa).comparisons
    return row


def close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return one == pytest.approx(other, rel=1e-6, abs=1e-9)


def alike(one: Comparison, other: Comparison) -> bool:
    ends = zip(one.ci95 or (), other.ci95 or (), strict=True)
    return (
        close(one.ratio, other.ratio)
        and close(one.smallest_detectable, other.smallest_detectable)
        and one.permutation_p == other.permutation_p
        and one.verdict is other.verdict
        and all(close(end, twin) for end, twin in ends)
    )


@given(log_ratios)
def test_the_interval_holds_the_ratio_and_the_ratio_is_b_over_a(values: list[float]) -> None:
    row = only(pairs_of(values))
    assert row.ci95 is not None
    assert row.ratio is not None
    assert row.a is not None
    assert row.b is not None
    assert row.ci95[0] * (1 - 1e-12) <= row.ratio <= row.ci95[1] * (1 + 1e-12)
    assert row.ratio == pytest.approx(row.b / row.a)
    if row.differs:
        assert not row.ci95[0] <= 1 <= row.ci95[1]


@given(log_ratios, st.sampled_from(("ttft_ms", "output_tokens_per_s")))
def test_swapping_the_arms_inverts_ratio_and_verdict(values: list[float], name: str) -> None:
    pairs = pairs_of(values, name)
    row, twin = only(pairs), only(swapped(pairs))
    assert row.ratio is not None
    assert row.ci95 is not None
    assert twin.ci95 is not None
    assert close(twin.ratio, 1 / row.ratio)
    assert close(twin.ci95[0], 1 / row.ci95[1])
    assert twin.verdict is OPPOSITE.get(row.verdict, row.verdict)
    assert close(twin.smallest_detectable, row.smallest_detectable)
    assert twin.permutation_p == row.permutation_p


@given(log_ratios, st.floats(1e-3, 1e6))
def test_the_unit_of_a_metric_does_not_matter(values: list[float], factor: float) -> None:
    row, twin = only(pairs_of(values)), only(pairs_of(values, base=100 * factor))
    assume(row.permutation_p is not None)
    assert row.verdict is twin.verdict
    assert close(row.ratio, twin.ratio)
    assert close(row.smallest_detectable, twin.smallest_detectable)


@given(log_ratios, st.integers(0, 12), st.sampled_from(("error", "throttled", "client", "none")))
def test_a_void_pair_changes_nothing_but_is_told(values: list[float], at: int, why: str) -> None:
    pairs = pairs_of(values)
    at = min(at, len(pairs))
    bad = block(
        "b",
        {"ttft_ms": 9e9},
        requests=0 if why == "none" else 9,
        errors=int(why == "error"),
        throttled=why == "throttled",
        client_limited="it used 90 % of a core" if why == "client" else None,
    )
    design = at_once(len(pairs))
    with_void = [*pairs[:at], Pair(block("a", {"ttft_ms": 1.0}), bad), *pairs[at:]]
    before = compare(pairs, a=A, b=B, design=design)
    after = compare(with_void, a=A, b=B, design=design)
    assert after.comparisons == before.comparisons
    assert (after.sentence, after.break_even) == (before.sentence, before.break_even)
    assert [one.pair for one in after.void] == [at + 1]
    assert after.pairs == before.pairs + 1


@given(log_ratios)
def test_the_order_of_blocks_in_time_is_not_part_of_the_answer(values: list[float]) -> None:
    pairs = pairs_of(values)
    turned = [Pair(replace(p.a, started_s=9.0), replace(p.b, started_s=8.0)) for p in pairs]
    assert {p.order for p in pairs} == {"AB"}
    assert {p.order for p in turned} == {"BA"}
    assert [Pair.of(p.b, p.a) for p in pairs] == pairs == [Pair.of(p.a, p.b) for p in pairs]
    assert alike(only(pairs), only(turned))


def test_an_interval_by_hand() -> None:
    # Student's own data of 1908, hours of sleep gained: t = -4.0621, interval -2.4599 to -0.7001.
    first = (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)
    second = (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4)
    row = only(pairs_of([a - b for a, b in zip(first, second, strict=True)]))
    assert row.ratio is not None
    assert row.ci95 is not None
    assert log(row.ratio) == pytest.approx(-1.58)
    assert [log(end) for end in row.ci95] == pytest.approx([-2.459886, -0.7001142], abs=1e-6)
    assert row.verdict is Verdict.BETTER


def test_fewer_than_six_pairs_are_not_enough_however_clear() -> None:
    outcome = compare(published(5), a=A, b=B, final=True)
    assert {row.verdict for row in outcome.comparisons} == {Verdict.NOT_ENOUGH}
    assert all(row.ci95 is None and row.ratio is not None for row in outcome.comparisons)
    assert outcome.sentence == (
        "Not enough to tell one card from two cards (5 valid pairs, at least 6 are needed)."
    )


def test_a_clear_difference_ends_the_run_at_the_first_look_and_not_between_looks() -> None:
    stops = [compare(published(n), a=A, b=B).stop for n in range(11)]
    assert stops[:6] == [None] * 6
    assert stops[6] == "every question is answered after 6 valid pairs"
    assert stops[7] is None
    between = compare(published(7), a=A, b=B)
    assert {row.why for row in between.comparisons} == {"the next look is after 8 valid pairs"}


def test_equal_arms_go_on_to_the_last_planned_pair() -> None:
    equal = pairs_of(WOBBLE)
    assert compare(equal[:8], a=A, b=B).stop is None
    done = compare(equal, a=A, b=B)
    assert done.stop == "all 10 planned pairs are done"
    assert done.comparisons[0].verdict is Verdict.NO_DIFFERENCE
    assert compare(equal[:7], a=A, b=B, final=True).stop == "it was ended"


def test_an_early_look_asks_for_more_and_widens_the_interval() -> None:
    faint = [0.016 + wobble * 2.2 for wobble in WOBBLE[:6]]
    early = compare(pairs_of(faint), a=A, b=B)
    planned = compare(pairs_of(faint), a=A, b=B, design=at_once(6))
    assert early.comparisons[0].verdict is Verdict.NO_DIFFERENCE
    assert planned.comparisons[0].verdict is Verdict.WORSE
    wide, narrow = early.comparisons[0].ci95, planned.comparisons[0].ci95
    assert wide is not None
    assert narrow is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_a_look_far_too_early_is_not_enough_instead_of_an_interval_of_everything() -> None:
    spread = [(-1) ** i * 0.4 for i in range(6)]
    ended = compare(pairs_of(spread), a=A, b=B, design=Design.of(200), final=True)
    row = ended.comparisons[0]
    assert (row.verdict, row.ci95, row.smallest_detectable) == (Verdict.NOT_ENOUGH, None, None)
    assert row.why == "so far only a difference of over 1,000 times could have been seen"
    assert ended.sentence == "Not enough to tell one card from two cards."
    json.dumps(outcome_json(ended), allow_nan=False)


def test_a_difference_within_what_a_against_itself_came_to_is_none() -> None:
    pairs = pairs_of([0.01 + wobble / 10 for wobble in WOBBLE])
    assert only(pairs).verdict is Verdict.WORSE
    aa = pairs_of([0.02, 0.021, 0.019, 0.02])
    outcome = result(pairs, aa=aa)
    row = outcome.comparisons[0]
    assert row.verdict is Verdict.NO_DIFFERENCE
    assert row.why == "within what A against itself came to"
    assert row.noise_floor == outcome.noise_floor == pytest.approx(exp(0.02) - 1)
    assert row.smallest_detectable is not None
    assert row.smallest_detectable > exp(0.02) - 1
    assert result(pairs, aa=aa[:1]).noise_floor is None


def test_an_even_a_a_run_still_has_the_floor_of_its_spread() -> None:
    aa = pairs_of([0.03, -0.03, 0.03, -0.03])
    assert result(pairs_of(WOBBLE), aa=aa).noise_floor == pytest.approx(exp(0.03 / 3**0.5) - 1)


def test_void_a_a_pairs_are_told_too() -> None:
    aa = [*pairs_of([0.01, 0.02]), Pair(block("a", {}, errors=2), block("a", {}))]
    outcome = result(pairs_of(WOBBLE), aa=aa)
    assert outcome.aa_pairs == 3
    assert [(one.pair, one.why) for one in outcome.aa_void] == [(3, "first: 2 errors")]


def test_several_questions_share_the_5_percent() -> None:
    names = ("ttft_ms", "tpot_ms", "output_tokens_per_s", "itl_ms")
    pairs = [
        pair(dict.fromkeys(names, 10.0), dict.fromkeys(names, 10.0 * exp(0.0033 + wobble)))
        for wobble in WOBBLE
    ]
    rows = {row.name: row for row in result(pairs).comparisons}
    assert rows["ttft_ms"].verdict is Verdict.NO_DIFFERENCE
    assert rows["ttft_ms"].why == "sure enough alone, not as one of 3 questions (Holm)"
    assert rows["itl_ms"].verdict is Verdict.WORSE  # Not of the family: a verdict for itself.
    assert rows["itl_ms"].ci95 == rows["ttft_ms"].ci95
    assert only(pairs_of([0.0033 + wobble for wobble in WOBBLE])).differs


def test_one_clear_answer_leaves_more_to_the_next_question() -> None:
    pairs = [
        pair(
            {"ttft_ms": 10.0, "tpot_ms": 10.0},
            {"ttft_ms": 20.0 * exp(wobble), "tpot_ms": 10.0 * exp(0.0033 + wobble)},
        )
        for wobble in WOBBLE
    ]
    assert [row.verdict for row in result(pairs).comparisons] == [Verdict.WORSE] * 2


def test_percentiles_of_too_few_requests_are_none_with_a_reason() -> None:
    names = ("ttft_ms", "ttft_ms_p90", "ttft_ms_p99")
    few = [
        Pair(
            block("a", dict.fromkeys(names, 5.0), requests=49),
            block("b", dict.fromkeys(names, 6.0), requests=499),
        )
        for _ in range(6)
    ]
    rows = {row.name: row for row in result(few).comparisons}
    assert rows["ttft_ms"].n == 6
    p90, p99 = rows["ttft_ms_p90"], rows["ttft_ms_p99"]
    assert (p90.n, p90.ratio, p90.ci95, p90.verdict) == (0, None, None, Verdict.NOT_ENOUGH)
    assert p90.why == "it needs 50 requests a block, one had 49"
    assert p99.why == "it needs 500 requests a block, one had 49"
    enough = [Pair(replace(p.a, requests=500), replace(p.b, requests=500)) for p in few]
    assert [row.n for row in result(enough).comparisons] == [6, 6, 6]


def test_a_figure_that_is_missing_or_no_positive_number_is_no_figure() -> None:
    whole = pairs_of(WOBBLE)
    for bad, why in ((None, "not measured"), (0.0, "positive"), (float("nan"), "positive")):
        spoilt = [*whole[:9], Pair(whole[9].a, replace(whole[9].b, metrics={"ttft_ms": bad}))]
        row = only(spoilt)
        assert (row.n, row.verdict) == (9, Verdict.NO_DIFFERENCE)
        none = [Pair(p.a, replace(p.b, metrics={"ttft_ms": bad})) for p in whole]
        assert why in (only(none).why or "")


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"errors": 1}, "B: 1 error"),
        ({"errors": 3}, "B: 3 errors"),
        ({"requests": 0}, "B: no request was finished"),
        ({"client_limited": "it used 80% of a core"}, "B: the client was the limit: it used 80%"),
        ({"throttled": True}, "B: throttled"),
        ({"throttled": True, "temperature_c": 95.6}, "B: throttled at 96 °C"),
    ],
)
def test_a_pair_is_void_for_how_it_ran(fault: dict[str, object], why: str) -> None:
    bad = Pair(block("a", {"ttft_ms": 1.0}), block("b", {"ttft_ms": 1.0}, **fault))  # type: ignore[arg-type]
    (void,) = result([bad]).void
    assert void.why.startswith(why)


def test_a_clock_that_falls_in_one_block_alone_voids_its_pair() -> None:
    def clocked(a: float, b: float) -> Pair:
        return Pair(
            block("a", {"ttft_ms": 10.0}, clocks_mhz={"cpu": a}),
            block("b", {"ttft_ms": 11.0}, clocks_mhz={"cpu": b}),
        )

    # B always runs its cores slower, and the room gets warmer: neither is a fault.
    usual = [clocked(3000 - 40 * i, 2700 - 36 * i) for i in range(8)]
    assert result(usual).void == ()
    outcome = result([*usual, clocked(2700, 2200)])
    assert [(v.pair, v.why) for v in outcome.void] == [
        (9, "B: the cpu clock fell 9% against its partner")
    ]
    assert result([*usual, clocked(2700, 2350)]).void == ()


def test_an_outlier_is_kept_and_widens_the_interval() -> None:
    calm = only(pairs_of([0.05 + wobble for wobble in WOBBLE]))
    wild = only(pairs_of([0.05 + wobble for wobble in WOBBLE[:9]] + [0.9]))
    assert calm.verdict is Verdict.WORSE
    assert wild.n == 10
    assert wild.verdict is Verdict.NO_DIFFERENCE


def test_a_run_of_void_pairs_ends_with_their_reason() -> None:
    bad = [Pair(block("a", {}, errors=1), block("b", {})) for _ in range(10)]
    outcome = compare(bad, a=A, b=B)
    assert outcome.comparisons == ()
    assert outcome.stop == "10 pairs were void, the first because of A: 1 error"
    assert outcome.sentence == (
        "Not enough to tell one card from two cards (0 valid pairs, at least 6 are needed; "
        "10 are void, the first because of A: 1 error)."
    )


def test_no_spread_at_all_is_no_accident() -> None:
    assert only(pairs_of([0.0] * 6)).verdict is Verdict.NO_DIFFERENCE
    row = only(pairs_of([0.5] * 6))
    assert row.verdict is Verdict.WORSE
    assert row.smallest_detectable == pytest.approx(0, abs=1e-9)


def test_two_saved_runs_are_compared_with_less_certainty() -> None:
    coin = random.Random(7)
    run_a = [block("a", {"ttft_ms": 100 * exp(coin.gauss(0, 0.01))}) for _ in range(8)]
    run_b = [block("b", {"ttft_ms": 110 * exp(coin.gauss(0, 0.02))}) for _ in range(8)]
    outcome = compare_runs(run_a, run_b, a=A, b=B)
    (row,) = outcome.comparisons
    assert row.verdict is Verdict.WORSE
    assert row.permutation_p is None
    assert not outcome.paired
    assert outcome.sentence.endswith("The runs were measured apart, which is weaker than pairs.")
    assert outcome_json(outcome)["paired"] is False


def test_welch_by_hand() -> None:
    # Logs 1 2 3 and 2 4 6 8: variances 1 and 20/3, so 1/3 + 5/3 = 2, df = 4 / (1/18 + 25/27).
    run_a = [block("a", {"ttft_ms": exp(x)}) for x in (1, 2, 3)]
    run_b = [block("b", {"ttft_ms": exp(x)}) for x in (2, 4, 6, 8)]
    (row,) = compare_runs(run_a, run_b, a=A, b=B).comparisons
    assert row.ratio == pytest.approx(exp(3))
    assert row.ci95 is not None
    half = (log(row.ci95[1]) - log(row.ci95[0])) / 2
    # The tables: 2.776 for 4, 2.571 for 5 degrees of freedom; here 4.075.
    assert 2.571 < half / 2**0.5 < 2.776
    assert row.n == 3


def test_one_run_each_gives_a_ratio_and_no_interval() -> None:
    outcome = compare_runs([block("a", ONE_CARD)], [block("b", TWO_CARDS)], a=A, b=B)
    assert [(row.verdict, row.ci95) for row in outcome.comparisons] == [
        (Verdict.NOT_ENOUGH, None)
    ] * 2
    assert [row.ratio for row in outcome.comparisons] == pytest.approx([0.68889, 1.43384], 1e-4)
    assert {row.why for row in outcome.comparisons} == {"one run each: no interval"}
    assert "(one run each: no interval)" in outcome.sentence


def test_blocks_with_errors_are_void_in_saved_runs_too() -> None:
    good = [block("a", {"ttft_ms": 1.0 + i / 100}) for i in range(3)]
    outcome = compare_runs([*good, block("a", {}, errors=1)], good[:2], a=A, b=B)
    assert [(one.pair, one.why) for one in outcome.void] == [(4, "A: 1 error")]
    assert outcome.comparisons[0].why == "3 and 2 blocks, an interval needs 3 of each run"


def test_the_json_object_has_the_contract_s_keys_and_one_unit_a_row() -> None:
    outcome = compare(published(), a=A, b=B, manifest={"started_at": "2026-01-01"})
    found = json.loads(json.dumps(outcome_json(outcome), allow_nan=False))
    assert found["schema"] == "slotdeck.ab/1"
    assert {"metrics", "pairs", "void", "noise_floor", "sentence", "manifest"} <= found.keys()
    assert found["manifest"]["started_at"] == "2026-01-01"
    assert found["manifest"]["statistics"]["design"]["looks"] == [6, 8, 10]
    first = found["metrics"][0]
    assert first["name"] == "ttft_ms"
    assert (first["unit"], first["better"], first["verdict"]) == ("ms", "lower", "better")
    assert first["ci95"][0] < first["ratio"] < first["ci95"][1]
    assert {"a", "b", "smallest_detectable", "n", "permutation_p"} <= first.keys()
    assert all(row["unit"] == METRICS[row["name"]].unit for row in found["metrics"])


def test_metrics_say_their_unit_and_which_way_is_better() -> None:
    for metric in METRICS.values():
        assert (metric.unit == "ms") == (metric.better is Better.LOWER)
        assert metric.unit == "ms" or metric.unit.startswith("tokens/s")


def test_figures_of_a_block() -> None:
    figures = latency_figures("ttft", summarize([0.1, 0.2, 0.3]))
    assert figures == {"ttft_ms": 200.0, "ttft_ms_p90": None, "ttft_ms_p99": None}
    assert latency_figures("itl", summarize([]))["itl_ms"] is None
    assert rate_figures(60.0, gpus=2, watts=300.0) == {
        "output_tokens_per_s": 60.0,
        "output_tokens_per_s_per_gpu": 30.0,
        "output_tokens_per_s_per_watt": 0.2,
    }
    assert rate_figures(None, gpus=2) == {"output_tokens_per_s": None}
    assert set(figures) | set(rate_figures(1.0, gpus=1, cores=1, watts=1.0)) <= set(METRICS)


def test_more_cards_may_give_more_and_yet_less_per_card() -> None:
    pairs = [
        pair(rate_figures(60.0, gpus=1), rate_figures(90.0 * exp(wobble), gpus=2))
        for wobble in WOBBLE
    ]
    rows = {row.name: row.verdict for row in result(pairs).comparisons}
    assert rows["output_tokens_per_s"] is Verdict.BETTER
    assert rows["output_tokens_per_s_per_gpu"] is Verdict.WORSE


def test_the_arms_are_the_caller_s() -> None:
    outcome = compare(published(), a=Arm("a.toml"), b=Arm("b.toml"))
    assert outcome.sentence.startswith("b.toml answers 31 % sooner")
