"""The early stop keeps the error rate, the order keeps its balance, the flips their meaning."""

import random
from itertools import product
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.comparing.design import Design, coin_words, orders
from engine.core.comparing.flips import EXACT_UP_TO, sign_flip_p
from engine.core.comparing.looks import levels_at, spent
from engine.core.comparing.student import critical_t, normal_critical


def wrong_share(looks: tuple[int, ...], criticals: list[float], runs: int, seed: int) -> float:
    """Of comparisons of equal arms, those that stop with a difference at any look."""
    coin = random.Random(seed)
    wrong = 0
    for _ in range(runs):
        total = squares = 0.0
        seen = 0
        for look, critical in zip(looks, criticals, strict=True):
            for _ in range(look - seen):
                value = coin.gauss(0, 1)
                total, squares = total + value, squares + value * value
            seen = look
            spread = (squares - total * total / look) / (look - 1)
            if abs(total) / look > critical * sqrt(spread / look):
                wrong += 1
                break
    return wrong / runs


@pytest.mark.parametrize("looks", [(6, 8, 10), (6, 12), (6, 7, 8, 9, 10, 11, 12), (6, 10, 15, 20)])
def test_all_looks_together_are_wrong_in_5_percent(looks: tuple[int, ...]) -> None:
    criticals = [
        critical_t(level, look - 1)
        for level, look in zip(levels_at(looks, looks[-1], 0.05), looks, strict=True)
    ]
    # The standard error of the share is 0.2 points.
    assert 0.044 <= wrong_share(looks, criticals, 12_000, seed=5) <= 0.056


def test_looking_at_plain_intervals_is_wrong_nearly_twice_as_often() -> None:
    looks = (6, 8, 10)
    plain = [critical_t(0.05, look - 1) for look in looks]
    assert wrong_share(looks, plain, 8_000, seed=5) > 0.085


def test_with_many_pairs_the_levels_are_the_published_ones_of_the_normal_law() -> None:
    # Lan and DeMets, O'Brien-Fleming type, five equal looks, 5 % two-sided.
    published = (4.8769, 3.3569, 2.6803, 2.2898, 2.0310)
    looks = (16, 32, 48, 64, 80)
    for level, z in zip(levels_at(looks, 80, 0.05), published, strict=True):
        assert normal_critical(level) == pytest.approx(z, abs=0.02)


def test_one_look_at_the_end_is_the_plain_test() -> None:
    assert levels_at((10,), 10, 0.05) == (0.05,)


@given(st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_what_is_spent_rises_to_the_whole(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert 0 <= spent(low, 0.05) <= spent(high, 0.05) <= 0.05
    assert spent(1.0, 0.05) == 0.05


def test_between_looks_there_is_nothing_to_spend() -> None:
    design = Design()
    assert [n for n in range(11) if design.level_after(n, 0.05) is not None] == [6, 8, 10]
    assert design.next_look(0) == 6
    assert design.next_look(7) == 8
    assert design.next_look(10) is None


def test_a_run_that_is_broken_off_gets_what_was_planned_for_by_then() -> None:
    design = Design()
    assert design.level_after(5, 0.05, final=True) is None
    broken_off = design.level_after(7, 0.05, final=True)
    planned = design.level_after(10, 0.05)
    assert broken_off is not None
    assert planned is not None
    assert broken_off < planned < 0.05
    overrun = design.level_after(11, 0.05)
    assert overrun is not None
    assert broken_off < overrun < 0.05


def test_a_design_says_what_is_wrong_with_it() -> None:
    with pytest.raises(ValueError, match="from 6 pairs"):
        Design(pairs=5, looks=(5,))
    with pytest.raises(ValueError, match="must rise"):
        Design(pairs=6, looks=(8, 6))
    with pytest.raises(ValueError, match="all 12 pairs"):
        Design(pairs=12)
    with pytest.raises(ValueError, match="no metric 'speed'"):
        Design(family=("speed",))
    assert Design.of(10) == Design()
    assert Design.of(9).looks == (6, 8, 9)
    assert Design.of(20, early=False).looks == (20,)


@given(st.integers(0, 40), st.integers(0, 2**70))
def test_both_orders_come_in_every_two_pairs(count: int, seed: int) -> None:
    found = orders(count, seed)
    assert len(found) == count
    assert all(set(found[i : i + 2]) == {"AB", "BA"} for i in range(0, count - 1, 2))
    assert orders(count + 2, seed)[:count] == found


def test_the_coin_is_a_coin_and_the_same_everywhere() -> None:
    # The first words of splitmix64 from 0, as published with it.
    words = coin_words(0)
    assert [next(words) for _ in range(3)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]
    firsts = [orders(2, seed)[0] for seed in range(2000)]
    assert 900 < firsts.count("AB") < 1100


def test_flips_of_pairs_that_all_agree_are_the_rarest() -> None:
    for n in range(1, EXACT_UP_TO + 1):
        assert sign_flip_p([0.01 + i / 1000 for i in range(n)]) == 2 / 2**n
    assert sign_flip_p([]) is None
    assert sign_flip_p([0.0] * 8) == 1.0


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=7), st.sampled_from((0.05, 0.2, 0.5)))
def test_flips_are_as_rare_as_they_say_where_the_arms_are_exchangeable(
    sizes: list[float], rare: float
) -> None:
    """Over all ways to name the arms, p <= x in at most a share x of them."""
    patterns = list(product((1, -1), repeat=len(sizes)))
    found = [
        sign_flip_p([sign * size for sign, size in zip(signs, sizes, strict=True)])
        for signs in patterns
    ]
    assert sum(p is not None and p <= rare for p in found) <= rare * len(patterns) + 1e-9


def test_above_16_pairs_flips_are_drawn_near_the_exact_share_and_repeatably() -> None:
    coin = random.Random(4)
    values = [coin.gauss(0.3, 1) for _ in range(16)]
    exact = sign_flip_p(values)
    drawn = sign_flip_p([*values, 0.0])  # A pair without a difference flips to itself.
    assert exact is not None
    assert drawn == pytest.approx(exact, abs=0.02)
    assert drawn == sign_flip_p([*values, 0.0])
    assert sign_flip_p([1.0] * 40, seed=3) == pytest.approx(1e-4)
