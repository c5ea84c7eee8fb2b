"""The promise, in small: under drift, memory and heavy tails a verdict errs in about 5 %.

Seeded, so that it says the same each time; benchmarks/ab_simulation.py has the large numbers.
"""

import random
from math import log

import pytest

from benchmarks.ab_simulation import TROUBLES, after_looks, drawn, verdict, wrong_answers
from engine.core.compare import compare
from engine.core.comparing.design import Design
from engine.core.comparing.values import Verdict
from tests.core.compared import A, B, pairs_of

RUNS = 300
BY_NAME = {trouble.name: trouble for trouble in TROUBLES}


@pytest.mark.parametrize("name", ["thermal ramp of 10 %", "ramp, AR(1) and heavy tails"])
def test_a_verdict_errs_rarely_where_habits_err_often(name: str) -> None:
    counts = wrong_answers(BY_NAME[name], RUNS, seed=11)
    # 5 % of 300 is 15, give or take 3.8.
    assert counts.whole <= 26
    assert counts.early <= 26
    assert counts.peeks > counts.early
    assert counts.bootstrap > counts.whole
    assert counts.one_run > 3 * counts.whole


def test_what_is_there_is_seen() -> None:
    design = Design(pairs=12, looks=(6, 8, 10, 12), family=("ttft_ms",))
    found = [after_looks(ratios, design) for ratios in drawn(12, 0.02, log(1.05), 200, seed=3)]
    assert all(one is not Verdict.BETTER for one, _ in found)
    assert sum(one is Verdict.WORSE for one, _ in found) >= 195
    assert sum(pairs for _, pairs in found) / len(found) < 8


def test_the_simulated_verdict_is_the_one_that_a_user_gets() -> None:
    coin = random.Random(8)
    design = Design(pairs=8, looks=(8,), family=("ttft_ms",))
    seen = set()
    for _ in range(40):
        ratios = [coin.gauss(0.015, 0.02) for _ in range(8)]
        (row,) = compare(pairs_of(ratios), a=A, b=B, design=design).comparisons
        assert row.verdict is verdict(ratios, design)
        seen.add(row.verdict)
    assert seen == {Verdict.WORSE, Verdict.NO_DIFFERENCE}
