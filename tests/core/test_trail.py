"""A ring of figures: as large as ever, gaps stay gaps, and what is sent is what was kept."""

from dataclasses import replace

import pytest

from engine.core.status import GpuUse
from engine.core.trail import FIGURES, PastFigures, Trail
from tests.tui.scripted_control import instance

OUT = list(FIGURES).index("out")


def filled(count: int, kept: int = 4) -> Trail:
    trail = Trail(kept)
    for at in range(count):
        values: list[float | None] = [None] * len(FIGURES)
        values[OUT] = None if at == 2 else float(at)
        trail.add(100.0 + at, 1.0, values)
    return trail


def test_it_keeps_the_newest_rows_in_the_same_memory() -> None:
    few, many = filled(3), filled(50)
    assert few.bytes_taken == many.bytes_taken
    assert [(at, over, values[OUT]) for at, over, values in few.rows()] == [
        (100.0, 1.0, 0.0),
        (101.0, 1.0, 1.0),
        (102.0, 1.0, None),
    ]
    assert [at for at, _, _ in many.rows()] == [146.0, 147.0, 148.0, 149.0]
    assert (Trail(4).last, many.last) == (None, 149.0)
    assert list(Trail(4).rows()) == []


def test_what_is_sent_comes_back_on_another_clock() -> None:
    past = PastFigures(rows={"a": filled(3).packed(now=110.0)})
    assert [(at, over, values[OUT]) for at, over, values in past.of("a", now=10.0)] == [
        (0.0, 1.0, 0.0),
        (1.0, 1.0, 1.0),
        (2.0, 1.0, None),
    ]
    assert list(past.of("b", now=10.0)) == []
    # A service that knows other figures than this panel.
    other = replace(past, figures=("new", *list(FIGURES)[1:]))
    assert [values[OUT] for _, _, values in other.of("a", now=10.0)] == [None] * 3
    assert list(replace(past, rows={"a": b"\0" * 7}).of("a", now=10.0)) == []


def test_figures_of_gpus_are_of_all_that_it_uses() -> None:
    each = replace(
        instance("a", "gpu:0,1", "0"),
        gpu_use=(GpuUse(0, 1 << 30, 0.5), GpuUse(1, 3 << 30, 1.0), GpuUse(2)),
    )
    assert FIGURES["vram"](each) == pytest.approx(4.0)
    assert FIGURES["gpu"](each) == pytest.approx(75.0)
    assert FIGURES["gpu"](instance("a", "core:0", "0")) is None
