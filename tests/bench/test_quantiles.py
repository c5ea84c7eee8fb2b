import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.quantiles import percentile, summarize

samples = st.lists(st.floats(0, 1e6), min_size=1, max_size=700)
shares = st.floats(0, 1)
law = settings(deadline=None, max_examples=60)


def test_nothing_is_unknown_and_not_zero() -> None:
    summary = summarize([])
    assert (summary.mean, summary.p50, summary.p90, summary.p99) == (None, None, None, None)
    assert summary.why_missing("requests") == "no requests"


@pytest.mark.parametrize(
    ("count", "p90", "p99", "why"),
    [
        (1, False, False, "p90 needs 50 requests, there were 1"),
        (49, False, False, "p90 needs 50 requests, there were 49"),
        (50, True, False, "p99 needs 500 requests, there were 50"),
        (499, True, False, "p99 needs 500 requests, there were 499"),
        (500, True, True, None),
    ],
)
def test_a_percentile_with_too_few_samples_is_none(
    count: int, *, p90: bool, p99: bool, why: str | None
) -> None:
    summary = summarize(float(value) for value in range(count))
    assert summary.p50 == (count - 1) / 2
    assert (summary.p90 is not None, summary.p99 is not None) == (p90, p99)
    assert summary.why_missing("requests") == why


def test_between_two_samples_it_interpolates() -> None:
    assert percentile([10.0, 20.0], 0.25) == 12.5
    assert percentile([10.0, 20.0, 30.0], 0.9) == pytest.approx(28.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentile([1.0], 90)


@law
@given(samples, shares, shares)
def test_percentiles_stay_inside_and_in_order(values: list[float], a: float, b: float) -> None:
    ordered = sorted(values)
    low, high = percentile(ordered, min(a, b)), percentile(ordered, max(a, b))
    assert low is not None
    assert high is not None
    # Interpolation rounds: two neighbouring shares may cross by the last bits.
    assert low <= high or low == pytest.approx(high)
    assert ordered[0] <= low
    assert high <= ordered[-1]


@law
@given(samples)
def test_the_order_of_samples_does_not_matter(values: list[float]) -> None:
    assert summarize(values) == summarize(reversed(values))


@law
@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=700))
def test_it_agrees_with_the_standard_library(values: list[float]) -> None:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    ordered = sorted(values)
    for share in (50, 90, 99):
        assert percentile(ordered, share / 100) == pytest.approx(cuts[share - 1], abs=1e-6)
    assert summarize(values).mean == pytest.approx(statistics.fmean(values))
