"""Prometheus text reduced to figures: counters, rates, shares and quantiles."""

from collections.abc import Sequence
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.metrics import MetricNames, Scrape, first_of, parse_metrics, quantile, rate
from engine.drivers.driver import VLLM_METRICS
from tests.shared import needs

NAMES = MetricNames(
    prompt_tokens=("e:prompt_total",),
    output_tokens=("e:output_total",),
    running=("e:running",),
    waiting=("e:waiting",),
    kv_cache_used=("e:kv_cache_usage_perc", "e:gpu_cache_usage_perc"),
    ttft_s=("e:ttft_seconds",),
    itl_s=("e:itl_seconds", "e:tpot_seconds"),
)


def read(text: str, at: float = 0.0) -> Scrape:
    return parse_metrics(text, NAMES, at=at)


BODY = """\
# HELP e:output_total Tokens.
# TYPE e:output_total counter
e:output_total{model="m"} 120.0
e:output_created{model="m"} 1.7e+09
e:running 3
e:waiting{model="a,b",path="{x}",quoted="say \\"hi\\", le=\\"9\\" }"} 2.0 1795340000000
e:gpu_cache_usage_perc{model="m"} 0.25
e:ttft_seconds_bucket{le="0.1",model="m"} 1
e:ttft_seconds_bucket{model="m",le="1.0"} 3
e:ttft_seconds_bucket{title=",le=\\"7\\"",handle="x",le="+Inf"} 4
e:ttft_seconds_sum 2.5
e:ttft_seconds_count 4
"""


def test_a_body_is_reduced_to_what_is_asked_for() -> None:
    scrape = read(BODY, at=7.0)
    assert scrape.at == 7.0
    assert scrape.scalars == {
        "e:output_total": 120.0,
        "e:running": 3.0,
        "e:waiting": 2.0,
        "e:gpu_cache_usage_perc": 0.25,
    }
    assert scrape.buckets == {"e:ttft_seconds": {0.1: 1.0, 1.0: 3.0, inf: 4.0}}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "e:output_total",
        "e:output_total ",
        "e:output_total{",
        'e:output_total{a="b} 5',
        'e:output_total{a="b"}',
        'e:output_total{a="b"} x',
        "e:output_total 1_000",
        "e:output_total NaN",
        "e:output_total +Inf",
        "# e:output_total 5",
        "e:output_totals 5",
        "e:output_total_bucket 5",
        "e:ttft_seconds_bucket 5",
        'e:ttft_seconds_bucket{le="x"} 5',
        'e:ttft_seconds_bucket{handle="3"} 5',
        'e:ttft_seconds_bucket{a=",le=\\"3\\""} 5',
        'e:ttft_seconds_bucket{le="0.1"} NaN',
        "\x00\ufffd{}",
    ],
)
def test_a_broken_line_is_skipped_and_the_next_one_read(line: str) -> None:
    scrape = read(f"{line}\ne:running 1\n")
    assert scrape.scalars == {"e:running": 1.0}
    assert scrape.buckets == {}


def test_an_exemplar_is_not_the_value() -> None:
    text = 'e:output_total{m="x"} 5 # {trace="abc"} 1.0 1795340000\ne:running 2 # {t="u"} 9\n'
    assert read(text).scalars == {"e:output_total": 5.0, "e:running": 2.0}


def test_windows_line_ends_and_values_of_every_form() -> None:
    assert read("e:output_total 1e3\r\ne:running -0\r\n").scalars == {
        "e:output_total": 1000.0,
        "e:running": 0.0,
    }


def test_data_parallel_engines_are_summed_and_their_shares_averaged() -> None:
    text = """\
e:output_total{engine="0"} 10
e:output_total{engine="1"} 32
e:kv_cache_usage_perc{engine="0"} 0.9
e:kv_cache_usage_perc{engine="1"} 0.3
e:ttft_seconds_bucket{engine="0",le="1"} 1
e:ttft_seconds_bucket{engine="0",le="+Inf"} 1
e:ttft_seconds_bucket{engine="1",le="1"} 2
e:ttft_seconds_bucket{engine="1",le="+Inf"} 5
"""
    scrape = read(text)
    assert scrape.scalars["e:output_total"] == 42
    assert first_of(scrape, NAMES.kv_cache_used) == pytest.approx(0.6)
    assert scrape.buckets["e:ttft_seconds"] == {1.0: 3.0, inf: 6.0}


@pytest.mark.parametrize(
    ("before", "after", "per_second"),
    [
        ((0, 10), (2, 30), 10.0),
        ((0, 10), (2, 10), 0.0),
        ((0, 10), (2, 9), None),  # it restarted
        ((2, 10), (2, 30), None),  # no time passed
        ((3, 10), (2, 30), None),
        ((0, None), (2, 30), None),
        ((0, 10), (2, None), None),
    ],
)
def test_a_rate_that_cannot_be_known_is_none(
    before: tuple[float, float | None], after: tuple[float, float | None], per_second: float | None
) -> None:
    def scrape(at: float, value: float | None) -> Scrape:
        return Scrape(at, {} if value is None else {"e:output_total": value})

    assert rate(scrape(*before), scrape(*after), NAMES.output_tokens) == per_second


def histogram(
    bounds: Sequence[float], samples: Sequence[float], name: str = "e:itl_seconds"
) -> str:
    lines = [
        f'{name}_bucket{{le="{"+Inf" if bound == inf else bound}"}} '
        f"{sum(1 for one in samples if one <= bound)}"
        for bound in (*bounds, inf)
    ]
    return "\n".join(lines)


BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.5, 2.0)
samples = st.lists(st.floats(0.0001, 5), min_size=1, max_size=60)


@given(samples, st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    estimate = quantile(None, read(histogram(BOUNDS, values)), NAMES.itl_s, share)
    assert estimate is not None
    rank = next(
        value
        for at, value in enumerate(sorted(values), 1)
        if at >= share * len(values)  # the smallest value that this share does not exceed
    )
    above = min((bound for bound in BOUNDS if bound >= rank), default=BOUNDS[-1])
    below = max((bound for bound in (0.0, *BOUNDS) if bound < rank), default=0.0)
    assert below <= estimate <= above or estimate == BOUNDS[-1]


@given(samples, samples)
def test_only_what_was_observed_between_two_scrapes_counts(
    early: list[float], late: list[float]
) -> None:
    before, both = read(histogram(BOUNDS, early)), read(histogram(BOUNDS, early + late))
    alone = quantile(None, read(histogram(BOUNDS, late)), NAMES.itl_s, 0.5)
    assert quantile(before, both, NAMES.itl_s, 0.5) == pytest.approx(alone)


def test_a_quantile_without_samples_or_after_a_restart_is_none() -> None:
    full, less = read(histogram(BOUNDS, [0.02, 0.03])), read(histogram(BOUNDS, [0.02]))
    assert quantile(full, full, NAMES.itl_s, 0.5) is None
    assert quantile(full, less, NAMES.itl_s, 0.5) is None
    assert quantile(None, read(""), NAMES.itl_s, 0.5) is None
    assert quantile(full, read(""), NAMES.itl_s, 0.5) is None


def test_beyond_the_last_bound_is_that_bound() -> None:
    assert quantile(None, read(histogram(BOUNDS, [9.0])), NAMES.itl_s, 0.5) == 2.0


def test_the_older_generation_of_names_is_read_too() -> None:
    old = read(histogram(BOUNDS, [0.02], name="e:tpot_seconds") + "\ne:gpu_cache_usage_perc 0.5")
    assert quantile(None, old, NAMES.itl_s, 1.0) == 0.025
    assert first_of(old, NAMES.kv_cache_used) == 0.5


def test_vllm_0_32_as_captured() -> None:
    body = needs("captures/vllm-0.32-cpu.metrics.txt").read_text()
    scrape = parse_metrics(body, VLLM_METRICS, at=0.0)
    assert first_of(scrape, VLLM_METRICS.prompt_tokens) == 463.0
    assert first_of(scrape, VLLM_METRICS.output_tokens) == 608.0
    assert first_of(scrape, VLLM_METRICS.running) == 0.0
    assert first_of(scrape, VLLM_METRICS.waiting) == 0.0
    assert first_of(scrape, VLLM_METRICS.kv_cache_used) == 0.0
    assert quantile(None, scrape, VLLM_METRICS.ttft_s, 0.5) == pytest.approx(2.5 + 2.5 / 9)
    assert quantile(None, scrape, VLLM_METRICS.itl_s, 0.5) == pytest.approx(0.1 + 0.05 * 70 / 356)


def test_vllm_0_6_6_as_captured() -> None:
    body = needs("captures/vllm-0.6.6-ipex-llm-cpu.metrics.txt").read_text()
    scrape = parse_metrics(body, VLLM_METRICS, at=0.0)
    assert first_of(scrape, VLLM_METRICS.prompt_tokens) == 79.0
    assert first_of(scrape, VLLM_METRICS.output_tokens) == 154.0
    assert first_of(scrape, VLLM_METRICS.kv_cache_used) == 0.0
    assert quantile(None, scrape, VLLM_METRICS.ttft_s, 0.5) == pytest.approx(0.25 + 0.25 * 2 / 3)
    assert quantile(None, scrape, VLLM_METRICS.itl_s, 0.5) == pytest.approx(
        0.05 + 0.025 * 75 / 149
    )
