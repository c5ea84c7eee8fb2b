"""Dragging on the board, with Textual's own events."""

import pytest

from engine.control import MoveInstance
from tests.tui.machines import SERVER
from tests.tui.pilots import NARROW, WIDE, board_text, cell, find, panel, text, toasts, until
from tests.tui.scripted_control import REFUSED, ScriptedControl, instance, snapshot
from tui.screens.confirm import ConfirmScreen
from tui.widgets.ghost import Ghost
from tui.widgets.machine_map import MachineMap

SIZES = pytest.mark.parametrize("size", [NARROW, WIDE], ids=["80x24", "200x60"])


def server() -> ScriptedControl:
    chat = instance("chat", "numa:0", "0-7,32-39")
    return ScriptedControl(SERVER, [snapshot(SERVER, (chat, instance("web", "core:16", "16,48")))])


@SIZES
async def test_from_the_table_onto_a_core(size: tuple[int, int]) -> None:
    control = server()
    async with panel(control, size) as (app, pilot):
        row, target = find(app, "web     "), cell(app, "core:9")
        await pilot.mouse_down(offset=row)
        await pilot.hover(offset=(row.x + 2, row.y))
        await pilot.hover(offset=target)
        await until(pilot, lambda: "can go to core:9: PUs 9,41" in text(app))
        assert "web → core:9" in text(app)
        assert not app.board.query_one(Ghost).region.contains_point(target)
        assert app.board.query_one(MachineMap).verdict == "good"
        await pilot.mouse_up(offset=target)
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert "web → core:9" not in board_text(app)
        assert control.applied == []
        assert control.offered[-1] == MoveInstance("web", "core:9")
        await pilot.press("enter")
        await until(pilot, lambda: len(control.applied) == 1)


@SIZES
async def test_from_a_cell_onto_a_numa_node(size: tuple[int, int]) -> None:
    control = server()
    async with panel(control, size) as (app, pilot):
        start, target = cell(app, "core:16"), cell(app, "numa:3")
        await pilot.mouse_down(offset=start)
        await pilot.hover(offset=(start.x + 1, start.y))
        await pilot.hover(offset=target)
        await pilot.mouse_up(offset=target)
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert control.offered[-1] == MoveInstance("web", "numa:3")


async def test_refusals_are_said_while_dragging() -> None:
    control = server()
    control.answer = lambda _: REFUSED
    async with panel(control) as (app, pilot):
        row, target = find(app, "chat     "), cell(app, "numa:1")
        await pilot.mouse_down(offset=row)
        await pilot.hover(offset=target)
        await until(pilot, lambda: "refused: 2 GiB more memory needed" in text(app))
        assert app.board.query_one(MachineMap).verdict == "bad"
        await pilot.press("escape")
        await until(pilot, lambda: "Moving" not in text(app))
        await pilot.mouse_up(offset=target)
        await pilot.pause()
        assert app.screen is app.board


async def test_dropped_outside_nothing_happens() -> None:
    control = server()
    async with panel(control) as (app, pilot):
        row = find(app, "chat     ")
        await pilot.mouse_down(offset=row)
        await pilot.hover(offset=(40, 23))
        await pilot.mouse_up(offset=(40, 23))
        await until(pilot, lambda: any("no slot of the machine" in each for each in toasts(app)))
        assert app.screen is app.board
        assert control.offered == []


async def test_dropped_where_it_is_nothing_is_asked() -> None:
    control = server()
    async with panel(control) as (app, pilot):
        row, target = find(app, "chat     "), cell(app, "numa:0")
        await pilot.mouse_down(offset=row)
        await pilot.hover(offset=target)
        await pilot.mouse_up(offset=target)
        await until(pilot, lambda: any("placed on numa:0 already" in each for each in toasts(app)))
        assert control.offered == []


async def test_a_click_selects_and_moves_nothing() -> None:
    control = server()
    async with panel(control) as (app, pilot):
        await pilot.click(offset=find(app, "web     "))
        await until(pilot, lambda: app.view.selected == "web")
        await pilot.click(offset=cell(app, "core:0"))
        await until(pilot, lambda: app.view.selected == "chat")
        assert control.offered == []


async def test_readonly_cannot_drag() -> None:
    control = server()
    async with panel(control, readonly=True) as (app, pilot):
        await pilot.mouse_down(offset=find(app, "chat     "))
        await pilot.hover(offset=cell(app, "core:9"))
        assert app.board.carrier.carry is None
