"""Numbers: short, with a unit elsewhere, a dash for what is not known."""

import math

import pytest

from tui.present import units

GIB = 1 << 30


@pytest.mark.parametrize(
    ("value", "decimals", "shown"),
    [
        (None, 0, "–"),
        (math.nan, 1, "–"),
        (math.inf, 1, "–"),
        (1e300, 0, "–"),
        (0.0, 1, "0.0"),
        (41.34, 1, "41.3"),
        (99_999, 0, "99999"),
        (123_456, 0, "123.5k"),
        (2_500_000, 1, "2.5M"),
        (7e9, 1, "7.0G"),
        (-3.0, 0, "-3"),
    ],
)
def test_number(value: float | None, decimals: int, shown: str) -> None:
    assert units.number(value, decimals) == shown


def test_memory_and_shares() -> None:
    assert units.memory(None) == "–"
    assert units.memory(8 * GIB) == "8.0 GiB"
    assert units.memory(512 * GIB) == "512 GiB"
    assert units.memory(2048 * GIB) == "2.0 TiB"
    assert units.gib(int(0.7 * GIB), 2) == "0.70"
    assert units.percent(0.983) == "98 %"
    assert units.percent(None) == "–"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "–"),
        (-1, "–"),
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7200, "2 h"),
        (2e5, "2 d"),
    ],
)
def test_span(seconds: float | None, shown: str) -> None:
    assert units.span(seconds) == shown


def test_counts() -> None:
    assert units.count(1, "core") == "1 core"
    assert units.count(2048, "PU") == "2,048 PUs"
