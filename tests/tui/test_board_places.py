"""Zoom, several at once, resizing, new instances, undo: each by mouse and by keys."""

import pytest
from textual import events
from textual.geometry import Offset
from textual.pilot import Pilot

from engine.control import AddInstances, MoveInstance, MoveInstances, Redo, Seat, Undo
from engine.core.cpuset import CpuSet
from engine.core.strangers import Stranger
from engine.core.topology import Machine
from tests.tui.machines import GIB, LARGEST, SERVER, SMALL, made
from tests.tui.pilots import (
    NARROW,
    WIDE,
    board_text,
    cell,
    find,
    find_on,
    panel,
    text,
    toasts,
    until,
)
from tests.tui.played_control import PlayedControl, wish
from tui.app import SlotdeckApp
from tui.screens.confirm import ConfirmScreen
from tui.screens.new_instance import NewInstanceScreen
from tui.widgets.ghost import Ghost
from tui.widgets.machine_map import MachineMap

SIZES = pytest.mark.parametrize("size", [NARROW, (120, 40), WIDE], ids=["80", "120", "200"])
STRANGER = Stranger(812, "python3", 1001, "alice", CpuSet.parse("20"), None, (1,), 8, GIB, 99.0)


def served() -> PlayedControl:
    wishes = (wish("chat", "core:0-3"), wish("coder", "core:8-9"), wish("card", "gpu:0"))
    return PlayedControl(SERVER, wishes)


def board_map(app: SlotdeckApp) -> MachineMap:
    return app.board.query_one(MachineMap)


async def dragged(pilot: Pilot[None], start: Offset, end: Offset) -> None:
    await pilot.mouse_down(offset=start)
    await pilot.hover(offset=start + Offset(1, 0))
    await pilot.hover(offset=end)
    await pilot.mouse_up(offset=end)


async def applied(app: SlotdeckApp, pilot: Pilot[None], control: PlayedControl) -> None:
    """Enter on the plan, and the board is in front again."""
    await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
    before = len(control.applied)
    await pilot.press("enter")
    await until(pilot, lambda: len(control.applied) == before + 1)
    await until(pilot, lambda: app.screen is app.board)
    await until(pilot, lambda: app.view.snapshot is control.its_snapshots[-1])


def pus(control: PlayedControl, name: str) -> str:
    return str(control.stands[name].placement.pus)


# Zoom


@SIZES
@pytest.mark.parametrize(
    "machine", [SMALL, made(1, 2, 4, smt=2), SERVER, LARGEST], ids=["1", "2", "4", "8x128"]
)
async def test_nearer_and_farther_by_keys(machine: Machine, size: tuple[int, int]) -> None:
    async with panel(PlayedControl(machine), size) as (app, pilot):
        the_map = board_map(app)
        the_map.focus()
        core = f"core:{len(machine.cores) - 1}"
        seen = [the_map.zoom]
        the_map.cursor = core
        for _ in range(4):
            await pilot.press("plus")
            if the_map.zoom != seen[-1]:
                seen.append(the_map.zoom)
                the_map.cursor = core
        assert seen[-1] == core
        assert f"core {core[5:]}" in board_text(app).split("\n")[1]
        assert the_map._plan is not None
        if len(machine.cores[-1].pus) > 1:
            pu = next(iter(machine.cores[-1].pus))
            assert the_map._plan.area(f"pu:{pu}") is not None
        for _ in range(4):
            await pilot.press("minus")
        assert the_map.zoom == "machine"
        await pilot.press("minus")
        await until(pilot, lambda: any("all of the machine" in each for each in toasts(app)))


async def test_two_clicks_go_nearer_and_a_breadcrumb_back() -> None:
    async with panel(PlayedControl(LARGEST), WIDE) as (app, pilot):
        await pilot.click(offset=cell(app, "numa:5"), times=2)
        await until(pilot, lambda: board_map(app).zoom == "package:5")
        title = board_text(app).split("\n")[1]
        assert "machine › package 5" in title
        await pilot.click(offset=(title.index("machine") + 2, 1), times=2)
        await until(pilot, lambda: board_map(app).zoom == "machine")


async def test_ctrl_and_the_wheel_zoom() -> None:
    async with panel(PlayedControl(SERVER), WIDE) as (app, pilot):
        the_map, at = board_map(app), cell(app, "numa:2")

        def wheel(kind: type[events.MouseScrollUp] | type[events.MouseScrollDown]) -> None:
            the_map.post_message(
                kind(the_map, 1, 1, 0, 0, 0, False, False, True, at.x, at.y)  # ctrl
            )

        wheel(events.MouseScrollUp)
        await until(pilot, lambda: the_map.zoom == "package:1")
        wheel(events.MouseScrollDown)
        await until(pilot, lambda: the_map.zoom == "machine")


async def test_the_title_is_reached_by_the_arrows() -> None:
    async with panel(PlayedControl(SERVER), WIDE) as (app, pilot):
        board_map(app).focus()
        await pilot.press("up", "up", "up")
        assert board_map(app).cursor == "machine"
        assert "machine · PUs 0-63" in board_text(app)


@SIZES
async def test_the_largest_machine_is_in_sight_at_once(size: tuple[int, int]) -> None:
    async with panel(PlayedControl(LARGEST, (wish("chat", "numa:3"),)), size) as (app, _):
        plan = board_map(app)._plan
        assert plan is not None
        assert plan.height <= board_map(app).size.height
        slots = {area.slot for area in plan.areas}
        assert {f"numa:{at}" for at in range(8)} | {f"gpu:{at}" for at in range(16)} <= slots


async def test_strangers_are_drawn_and_named() -> None:
    control = served()
    control.strangers = (STRANGER,)
    control.its_snapshots = [control.picture()]
    async with panel(control, WIDE) as (app, pilot):
        assert "▒ python3 (pid 812, alice)" in board_text(app)
        board_map(app).focus()
        board_map(app).put_cursor("core:20")
        await until(
            pilot, lambda: "core:20 · PUs 20,52 · taken by python3 (pid 812" in board_text(app)
        )
        board_map(app).put_cursor("gpu:1")
        await until(pilot, lambda: "taken by python3" in board_text(app))
        await pilot.press("m")
        await pilot.press("right", "left")
        await until(pilot, lambda: "Moving chat" in board_text(app))


# Several at once


@SIZES
async def test_marked_ones_move_together_by_keys(size: tuple[int, int]) -> None:
    control = served()
    async with panel(control, size) as (app, pilot):
        await pilot.press("space", "down", "space")
        await until(pilot, lambda: app.view.marked == {"chat", "coder"})
        await pilot.press("m")
        board_map(app).put_cursor("core:24")
        await until(pilot, lambda: "all fit: chat PUs 24-27, coder PUs 28-29" in board_text(app))
        await pilot.press("enter")
        await applied(app, pilot, control)
        assert control.offered[-1] == MoveInstances(
            (Seat("chat", "core:24-27"), Seat("coder", "core:28-29"))
        )
        assert (pus(control, "chat"), pus(control, "coder")) == ("24-27", "28-29")


async def test_marked_ones_are_dragged_together_and_esc_puts_them_back() -> None:
    control = served()
    async with panel(control, WIDE) as (app, pilot):
        await pilot.press("space", "down", "space")
        start, end = find(app, "coder     ●"), cell(app, "core:24")
        await pilot.mouse_down(offset=start)
        await pilot.hover(offset=start + Offset(2, 0))
        await pilot.hover(offset=end)
        await until(pilot, lambda: "chat and 1 more → core:24" in board_text(app))
        assert board_map(app).target == "core:24-29"
        await pilot.press("escape")
        await until(pilot, lambda: board_map(app).target is None)
        assert not app.board.query_one(Ghost).display
        await pilot.mouse_up(offset=end)
        assert app.screen is app.board
        await pilot.press("escape")
        await until(pilot, lambda: not app.view.marked)


async def test_every_place_shows_at_once_whether_it_may_be() -> None:
    control = served()
    async with panel(control, WIDE) as (app, pilot):
        await pilot.press("m")
        told = board_map(app)._tints
        assert (told["numa:3"], told["numa:1"], told["gpu:0"]) == ("good", "bad", "bad")
        board_map(app).put_cursor("core:8")
        await until(pilot, lambda: "4 cores · overlaps coder" in board_text(app))
        assert board_map(app).verdict == "bad"
        await pilot.press("escape")
        await until(pilot, lambda: board_map(app)._tints == {})


# Resizing


@SIZES
async def test_an_end_is_moved_by_keys(size: tuple[int, int]) -> None:
    control = served()
    async with panel(control, size) as (app, pilot):
        await pilot.press("c")
        await until(pilot, lambda: "Resizing chat" in board_text(app))
        await pilot.press("left", "left")
        await until(pilot, lambda: "core:0-1" in board_text(app))
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: "core:0-2" in board_text(app))
        await pilot.press("enter")
        await applied(app, pilot, control)
        assert control.offered[-1] == MoveInstance("chat", "core:0-2")
        assert pus(control, "chat") == "0-2"


@SIZES
async def test_an_end_is_dragged(size: tuple[int, int]) -> None:
    control = served()
    async with panel(control, size) as (app, pilot):
        await pilot.press("down")
        await until(pilot, lambda: app.view.selected == "coder")
        await dragged(pilot, cell(app, "core:9") - Offset(1, 0), cell(app, "core:12"))
        await applied(app, pilot, control)
        assert control.offered[-1] == MoveInstance("coder", "core:8-12")


async def test_the_first_core_is_an_end_too_and_c_turns() -> None:
    control = served()
    async with panel(control, WIDE) as (app, pilot):
        await pilot.press("down", "c", "c")
        board_map(app).put_cursor("core:10")
        await until(pilot, lambda: "Resizing coder → core:9-10" in board_text(app))
        await pilot.press("escape")
        await dragged(pilot, cell(app, "core:8") - Offset(1, 0), cell(app, "core:6"))
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert control.offered[-1] == MoveInstance("coder", "core:6-9")


async def test_a_move_may_grow_on_its_way() -> None:
    control = served()
    async with panel(control, WIDE) as (app, pilot):
        await pilot.press("m")
        board_map(app).put_cursor("core:24")
        await pilot.press("right_square_bracket", "right_square_bracket")
        await until(pilot, lambda: "Moving chat → core:24-29" in board_text(app))
        await pilot.press("left_square_bracket", "enter")
        await applied(app, pilot, control)
        assert pus(control, "chat") == "24-28"


async def test_zoom_works_while_carrying_and_other_keys_put_back() -> None:
    control = served()
    async with panel(control, WIDE) as (app, pilot):
        await pilot.press("m", "plus")
        assert app.board.carrier.carry is not None
        assert board_map(app).zoom != "machine"
        await pilot.press("u")
        assert app.board.carrier.carry is None


# New ones


@SIZES
async def test_a_new_instance_is_drawn_by_keys(size: tuple[int, int]) -> None:
    control = served()
    async with panel(control, size) as (app, pilot):
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, NewInstanceScreen))
        assert "bundled:smollm2-135m" in text(app)
        await pilot.press("down", "right")
        await until(pilot, lambda: "vllm-xpu: it is not installed" in text(app))
        await pilot.press("enter")
        assert isinstance(app.screen, NewInstanceScreen)
        await pilot.press("left", "w", "enter")
        await until(pilot, lambda: app.screen is app.board)
        board_map(app).put_cursor("core:16")
        await pilot.press("enter")
        board_map(app).put_cursor("core:19")
        await until(pilot, lambda: "New coder-2 → core:16-19" in board_text(app))
        await pilot.press("enter")
        await applied(app, pilot, control)
        change = control.offered[-1]
        assert isinstance(change, AddInstances)
        made_wish = change.wishes[0].wish
        assert (made_wish.name, made_wish.engine, made_wish.model, made_wish.weight_only) == (
            *("coder-2", "torch", "/models/coder"),
            "int8",
        )
        assert pus(control, "coder-2") == "16-19"


async def test_a_new_instance_is_drawn_with_the_mouse() -> None:
    control = served()
    async with panel(control, WIDE) as (app, pilot):
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, NewInstanceScreen))
        await pilot.click(offset=find_on(app, "▌ bundled:smollm2-135m"), times=2)
        await until(pilot, lambda: app.screen is app.board)
        await dragged(pilot, cell(app, "core:24"), cell(app, "core:26"))
        await applied(app, pilot, control)
        assert pus(control, "smollm2-135m") == "24-26"


@SIZES
async def test_a_new_instance_is_pulled_out_of_the_palette(size: tuple[int, int]) -> None:
    control = served()
    async with panel(control, size) as (app, pilot):
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, NewInstanceScreen))
        at = find_on(app, "/models/coder")
        await pilot.mouse_down(offset=at)
        await pilot.hover(offset=at + Offset(1, 0))
        await until(pilot, lambda: app.screen is app.board)
        await pilot.hover(offset=cell(app, "core:0"))  # where chat is
        await until(pilot, lambda: "overlaps chat" in board_text(app))
        await pilot.hover(offset=cell(app, "numa:3"))
        await until(pilot, lambda: "can go to numa:3" in board_text(app))
        await pilot.hover(offset=cell(app, "core:24"))
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: "New coder-2 → core:24-25" in board_text(app))
        await pilot.mouse_up(offset=cell(app, "core:24"))
        await applied(app, pilot, control)
        assert pus(control, "coder-2") == "24-25"


async def test_nothing_is_pulled_out_that_cannot_be_started_and_escape_puts_it_back() -> None:
    control = served()
    async with panel(control, WIDE) as (app, pilot):
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, NewInstanceScreen))
        await pilot.press("right")
        await until(pilot, lambda: "vllm-xpu: it is not installed" in text(app))
        at = find_on(app, "/models/coder")
        await pilot.mouse_down(offset=at)
        await pilot.hover(offset=at + Offset(2, 0))
        await pilot.mouse_up(offset=at + Offset(2, 0))
        assert isinstance(app.screen, NewInstanceScreen)
        await pilot.press("left")
        await pilot.mouse_down(offset=at)
        await pilot.hover(offset=at + Offset(2, 0))
        await until(pilot, lambda: app.board.carrier.carry is not None)
        await until(pilot, lambda: app.screen is app.board)
        await pilot.press("escape")
        await until(pilot, lambda: app.board.carrier.carry is None)
        await pilot.mouse_up(offset=cell(app, "numa:3"))
        assert control.offered == []


async def test_a_new_instance_dropped_on_a_node_takes_it() -> None:
    control = served()
    async with panel(control, WIDE) as (app, pilot):
        await pilot.press("n", "enter")
        await until(pilot, lambda: app.board.carrier.carry is not None)
        board_map(app).put_cursor("numa:3")
        await pilot.press("enter")
        await applied(app, pilot, control)
        assert pus(control, "smollm2-135m") == "24-31"


# Undo


@SIZES
async def test_undo_and_redo_are_offers(size: tuple[int, int]) -> None:
    control = served()
    async with panel(control, size) as (app, pilot):
        first = control.places()
        await pilot.press("u")
        await until(pilot, lambda: any("no placement was changed" in one for one in toasts(app)))
        await pilot.press("x")
        await applied(app, pilot, control)
        await pilot.press("u")
        await until(pilot, lambda: "takes back: stop chat" in text(app))
        await applied(app, pilot, control)
        assert Undo() in control.offered
        assert control.places() == first
        await pilot.press("ctrl+r")
        await applied(app, pilot, control)
        assert Redo() in control.offered
        assert not control.stands["chat"].runs
        await pilot.press("U")
        await until(pilot, lambda: any("nothing was undone" in one for one in toasts(app)))
