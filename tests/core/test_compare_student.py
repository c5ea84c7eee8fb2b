"""Against tables that anybody can look up, and against closed forms."""

from math import atan, pi, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.comparing.student import (
    critical_t,
    detectable_shift,
    incomplete_beta,
    normal_critical,
    normal_tail,
    power,
    two_tails,
)

# Two-sided 10 %, 5 %, 1 % and 0.1 %, as every book prints them.
TABLE = {
    1: (6.314, 12.706, 63.657, 636.619),
    2: (2.920, 4.303, 9.925, 31.599),
    3: (2.353, 3.182, 5.841, 12.924),
    4: (2.132, 2.776, 4.604, 8.610),
    5: (2.015, 2.571, 4.032, 6.869),
    7: (1.895, 2.365, 3.499, 5.408),
    9: (1.833, 2.262, 3.250, 4.781),
    11: (1.796, 2.201, 3.106, 4.437),
    15: (1.753, 2.131, 2.947, 4.073),
    19: (1.729, 2.093, 2.861, 3.883),
    30: (1.697, 2.042, 2.750, 3.646),
    60: (1.671, 2.000, 2.660, 3.460),
    120: (1.658, 1.980, 2.617, 3.373),
}


@pytest.mark.parametrize("df", TABLE)
def test_quantiles_of_t_are_those_of_the_tables(df: int) -> None:
    found = [round(critical_t(level, df), 3) for level in (0.10, 0.05, 0.01, 0.001)]
    assert found == list(TABLE[df])


def test_with_1_and_2_degrees_of_freedom_the_tails_have_closed_forms() -> None:
    for t in (0.1, 1.0, 4.0, 300.0):
        assert two_tails(t, 1) == pytest.approx(1 - 2 * atan(t) / pi, rel=1e-12)
        assert two_tails(t, 2) == pytest.approx(1 - t / sqrt(2 + t * t), rel=1e-9)


@given(st.floats(0.5, 50), st.floats(0.5, 50), st.floats(0.001, 0.999))
def test_the_incomplete_beta_is_a_probability_and_mirrors(a: float, b: float, x: float) -> None:
    found = incomplete_beta(a, b, x)
    assert 0 <= found <= 1
    assert found + incomplete_beta(b, a, 1 - x) == pytest.approx(1, abs=1e-10)


def test_the_incomplete_beta_with_whole_numbers_is_a_binomial_tail() -> None:
    # I_p(k, n - k + 1) = P(at least k of n): 2 or more of 3 coins.
    assert incomplete_beta(2, 2, 0.5) == pytest.approx(0.5)
    assert incomplete_beta(3, 1, 0.5) == pytest.approx(0.125)
    assert incomplete_beta(2, 3, 0.0) == 0.0
    assert incomplete_beta(2, 3, 1.0) == 1.0


@given(st.floats(1e-9, 0.9), st.floats(1.0, 200.0))
def test_a_critical_value_is_passed_as_often_as_asked(level: float, df: float) -> None:
    assert two_tails(critical_t(level, df), df) == pytest.approx(level, rel=1e-6)


def test_a_level_outside_0_and_1_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="not at 1"):
        critical_t(1, 5)


def test_the_normal_law() -> None:
    assert normal_critical(0.05) == pytest.approx(1.959964, abs=1e-6)
    assert normal_critical(0.01) == pytest.approx(2.575829, abs=1e-6)
    assert normal_tail(1.644854) == pytest.approx(0.05, abs=1e-7)


def test_power_is_that_of_the_published_tables() -> None:
    # Cohen's d of a paired t-test at 5 %, two-sided: n and the power that books print for it.
    for n, d, seen in ((10, 1.0, 0.803), (34, 0.5, 0.808), (15, 0.8, 0.821)):
        assert power(d * sqrt(n), 0.05, n - 1) == pytest.approx(seen, abs=0.002)
    # The tables ask 199 pairs of who wants 80 % for d = 0.2.
    assert power(0.2 * sqrt(198), 0.05, 197) < 0.8 < power(0.2 * sqrt(199), 0.05, 198)
    assert power(0.0, 0.05, 9) == pytest.approx(0.05, abs=1e-6)
    assert power(0.0, 0.05, 1) == pytest.approx(0.05, abs=1e-4)


def test_the_detectable_shift_has_the_power_asked_for() -> None:
    for level, df in ((0.05, 5), (0.05, 9), (0.0167, 9), (0.001, 5)):
        assert power(detectable_shift(level, df), level, df) == pytest.approx(0.8, abs=1e-6)
    assert detectable_shift(0.05, 9) == pytest.approx(3.15, abs=0.01)
