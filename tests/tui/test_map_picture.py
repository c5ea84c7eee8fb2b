"""A picture that is changed cell by cell is the one that would be drawn anew."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.status import GpuStatus, NodeStatus, Snapshot
from engine.core.topology import Machine
from tests.tui.machines import GIB, SERVER, SMALL, made
from tests.tui.scripted_control import instance, snapshot
from tui.present.glyphs import ASCII, UNICODE, Glyphs
from tui.present.ink import Span, cells_of, merged, plain
from tui.present.map_cells import map_row
from tui.present.map_parts import Scale
from tui.present.map_picture import Picture
from tui.present.map_plan import map_plan
from tui.present.map_scene import map_scene, same_setting
from tui.view import View

BARRED = made(1, 2, 16, smt=2, unusable="0-3,40")
CASES = [
    (SMALL, 60, 20, Scale.LARGE, UNICODE),
    (SERVER, 120, 40, Scale.LARGE, UNICODE),
    (BARRED, 100, 12, Scale.NORMAL, UNICODE),
    (made(2, 1, 64, smt=2), 100, 10, Scale.DENSE, UNICODE),
    (made(2, 1, 64, smt=2), 100, 10, Scale.DENSE, ASCII),
    (made(1, 1, 96, smt=4), 100, 8, Scale.DENSE, UNICODE),
    (made(4, 2, 24, smt=2, gpus=4), 60, 16, Scale.ROWS, UNICODE),
    (made(4, 2, 24, smt=2, gpus=4), 100, 6, Scale.ROWS, UNICODE),
]
SHARES = st.one_of(st.none(), st.floats(0, 1), st.sampled_from([0.0, 1.0, 2.0, float("nan")]))


@st.composite
def moments(draw: st.DrawFn, machine: Machine) -> Snapshot:
    """Often the same as before but for some loads; sometimes instances or memory are others."""
    pus = draw(st.sampled_from(["0-1", "0-1", "0-1", "1"]))
    busy: list[float | None] = [0.1] * len(machine.pus.online)
    for at in draw(st.lists(st.integers(0, len(busy) - 1), max_size=12)):
        busy[at] = draw(SHARES)
    free = draw(st.sampled_from([5, 5, 9])) * GIB
    nodes = tuple(NodeStatus(n.os_index, GIB, free, None, None) for n in machine.numa_nodes)
    gpus = tuple(GpuStatus(g.index, draw(SHARES), 4 * GIB) for g in machine.gpus)
    rows = (instance("chat", "core:0", pus),)
    return snapshot(machine, rows, pus_busy=tuple(busy), numa_nodes=nodes, gpus=gpus)


@pytest.mark.parametrize(("machine", "width", "budget", "scale", "glyphs"), CASES)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_it_is_what_would_be_drawn_anew(
    machine: Machine, width: int, budget: int, scale: Scale, glyphs: Glyphs, data: st.DataObject
) -> None:
    plan = map_plan(machine, width, budget)
    assert plan.scale is scale
    view = View(machine, data.draw(moments(machine)), selected="chat")
    scene = map_scene(view, machine, glyphs=glyphs)
    picture = Picture(plan, scene)
    shown = [list(picture.cells(y)) for y in range(plan.height)]
    for _ in range(3):
        before, view = view, replace(view, snapshot=data.draw(moments(machine)))
        assert view.snapshot is not None
        fresh = map_scene(view, machine, glyphs=glyphs)
        scene = scene.moved(view.snapshot) if same_setting(before, view) else fresh
        for y, x, size in picture.take(scene):
            assert size > 0
            shown[y][x : x + size] = picture.cells(y)[x : x + size]
        for y in range(plan.height):
            assert picture.cells(y) == cells_of(map_row(plan, fresh, y))
            assert shown[y] == picture.cells(y), "what changed was not told"


def test_what_stays_is_not_written_again() -> None:
    plan = map_plan(SERVER, 120, 40)
    moment = snapshot(SERVER, (instance("chat", "core:0", "0-1"),))
    scene = map_scene(View(SERVER, moment), SERVER)
    picture = Picture(plan, scene)
    rows = [picture.line(y) for y in range(plan.height)]
    assert picture.take(scene.moved(moment)) == []
    busy = [*moment.pus_busy]
    busy[5] = 1.0 - (busy[5] or 0.0)
    (run,) = picture.take(scene.moved(replace(moment, pus_busy=tuple(busy))))
    changed = [y for y, row in enumerate(rows) if picture.line(y) != row]
    assert changed == [run[0]]


def test_a_wide_letter_takes_two_cells() -> None:
    cells = cells_of((Span("a机e\u0301", "text"), Span("  ", "muted"), Span(" ", "owner:1!")))
    assert [cell.text for cell in cells] == ["a", "机", "", "e\u0301", " ", " ", " "]
    assert [cell.ink for cell in cells[4:]] == ["", "", "owner:1!"]
    assert plain(merged(cells)) == "a机e\u0301   "
