"""Figures over time: a missing sample is a gap, and zero is not a gap."""

from dataclasses import replace

import pytest

from engine.core.status import InstanceStatus, TokenRates
from engine.service.past import Past
from tests.tui.machines import SMALL
from tests.tui.scripted_control import instance, snapshot
from tui.present.glyphs import ASCII, UNICODE
from tui.present.ink import plain
from tui.present.plot import history_lines, plot_lines, scale_top
from tui.trails import METRICS, Trails

OUT = METRICS[0]


def at_rate(rate: float | None, name: str = "a") -> InstanceStatus:
    return replace(instance(name, "core:0", "0"), tokens_per_s=TokenRates(output=rate))


def trails(*samples: tuple[float, float | None]) -> Trails:
    made = Trails()
    for at, rate in samples:
        made.add(snapshot(SMALL, (at_rate(rate),)), at)
    return made


@pytest.mark.parametrize(
    ("samples", "series"),
    [
        ([(10.0, 1.0), (11.0, 2.0), (12.0, 3.0)], [None, 1.0, 2.0, 3.0]),
        # A little early or late leaves no hole.
        ([(9.9, 1.0), (11.1, 2.0), (12.05, 3.0)], [1.0, 2.0, 2.0, 3.0]),
        # Not known, and not asked: both are gaps.
        ([(9.0, 1.0), (10.0, None), (11.0, 2.0), (12.0, 3.0)], [1.0, None, 2.0, 3.0]),
        ([(9.0, 1.0), (12.5, 3.0)], [1.0, None, None, 3.0]),
        ([(9.0, 0.0), (10.0, 0.0), (11.0, 0.0), (12.0, 0.0)], [0.0, 0.0, 0.0, 0.0]),
        ([], [None] * 4),
    ],
)
def test_series(samples: list[tuple[float, float | None]], series: list[float | None]) -> None:
    assert trails(*samples).series("a", OUT, now=12.6, step_s=1.0, steps=4) == series


def test_several_samples_of_a_step_are_their_mean() -> None:
    made = trails((10.0, 1.0), (11.0, 3.0), (12.0, 5.0), (13.0, 7.0))
    assert made.series("a", OUT, now=13.5, step_s=2.0, steps=2) == [2.0, 6.0]


def test_who_leaves_the_list_is_forgotten() -> None:
    made = trails((1.0, 5.0))
    made.add(snapshot(SMALL, (at_rate(1.0, "b"),)), 2.0)
    assert made.series("a", OUT, now=2.0, step_s=1.0, steps=2) == [None, None]


def test_what_the_service_kept_stands_before_what_was_seen_here() -> None:
    """At 5 s a sample while nobody watched, a stop of the service, and then this panel."""
    past = Past()
    for at, rate in [(1.0, 4.0), (6.0, 5.0), (11.0, None), (30.0, 7.0), (35.0, 9.0)]:
        past.add(at, (at_rate(rate),))
    made = trails((135.5, 9.0), (136.5, 11.0))  # whose clock is another one
    made.fill(past.told(now=36.0), now=136.0)
    series = made.series("a", OUT, now=136.6, step_s=1.0, steps=37)
    assert series[1:7] == [4.0, 5.0, 5.0, 5.0, 5.0, 5.0]
    assert series[7:30] == [None] * 23
    assert series[30:] == [7.0, 9.0, 9.0, 9.0, 9.0, 9.0, 11.0]
    made.fill(past.told(now=36.0), now=136.0)  # a link that came back brings nothing twice
    assert made.series("a", OUT, now=136.6, step_s=1.0, steps=37) == series


@pytest.mark.parametrize(
    ("values", "top"),
    [([0.2], 1.0), ([1.01], 1.5), ([41.3, None], 50.0), ([None], 1.0), ([100.0], 100.0)],
)
def test_scales_end_at_round_numbers(values: list[float | None], top: float) -> None:
    assert scale_top(values) == top


def test_a_plot_tells_zero_from_a_gap() -> None:
    values = [None, 0.0, 4.0, 8.0]
    lines = [plain(line) for line in plot_lines(OUT, values, 3, UNICODE, seconds=4)]
    assert lines[1:] == ["   █", "·▁██"]
    assert [plain(line) for line in plot_lines(OUT, values, 3, ASCII, seconds=4)][2] == "..##"
    wide = plain(plot_lines(OUT, [None] * 36 + values, 3, UNICODE, seconds=40)[0])
    assert wide.startswith("output 8.0 tokens/s")
    assert wide.endswith("0–8 · 40 s")
    assert len(wide) == 40


def test_nothing_known_says_why() -> None:
    lines = plot_lines(OUT, [None] * 30, 4, UNICODE, seconds=30, why_unknown="no requests")
    assert "no requests" in "\n".join(plain(line) for line in lines)
    assert "– tokens/s" in plain(lines[0])


def test_plots_stand_side_by_side() -> None:
    plot = plot_lines(OUT, [1.0] * 10, 3, UNICODE, seconds=10)
    lines = [plain(line) for line in history_lines([plot, plot, plot], [10, 10], 2)]
    assert len(lines) == 6
    assert {len(line) for line in lines[:3]} == {22}
