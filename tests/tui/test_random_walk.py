"""Random walks over the board: whatever is pressed and dragged, screen and service agree, and
undoing everything brings back the first state."""

import asyncio
import random
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from textual.geometry import Offset
from textual.pilot import Pilot

from engine.core.cpuset import CpuSet
from tests.tui.machines import LARGEST, SERVER, SMALL
from tests.tui.pilots import panel, text, until
from tests.tui.played_control import PlayedControl, wish
from tui.app import SlotdeckApp
from tui.present.map_scene import held
from tui.screens.confirm import ConfirmScreen
from tui.widgets.machine_map import MachineMap

KEYS = (
    *("up", "down", "left", "right", "tab", "enter", "escape", "space"),
    *("m", "c", "n", "u", "U", "s", "x", "R", "p", "plus", "minus"),
    *("right_square_bracket", "left_square_bracket"),
)
STEPS = st.lists(
    st.one_of(
        st.sampled_from(KEYS),
        st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)),
    ),
    min_size=4,
    max_size=12,
)
WALKS = {
    "small, 80x24": (SMALL, (wish("a", "core:0"),), (80, 24)),
    "server, 120x40": (
        SERVER,
        (wish("a", "core:0-3"), wish("b", "core:8-9"), wish("g", "gpu:0")),
        (120, 40),
    ),
    "largest, 200x60": (
        LARGEST,
        (wish("a", "numa:0"), wish("b", "core:128-191"), wish("g", "gpu:8,9")),
        (200, 60),
    ),
}


def _has_steps(control: PlayedControl, many: int) -> bool:
    return len(control.history.done) == many


def agree(app: SlotdeckApp, control: PlayedControl) -> None:
    """What the board draws is what the service holds."""
    shown = {one.name: (one.slot, held(one)) for one in app.view.instances}
    assert shown == {
        name: (one.placement.slot, one.placement.pus if one.runs else CpuSet())
        for name, one in control.stands.items()
    }
    scene, machine = app.board.query_one(MachineMap)._scene, control.its_machine
    assert scene is not None
    drawn = {pu for pu, badges in scene.owners.items() if badges}
    running = [one.placement.pus for one in control.stands.values() if one.runs]
    assert drawn == {pu for pus in running for pu in pus}
    cores = [{at for at, core in enumerate(machine.cores) if core.pus & pus} for pus in running]
    assert sum(map(len, cores)) == len(set().union(*cores)), "a core is given twice"


async def drag(app: SlotdeckApp, pilot: Pilot[None], dice: tuple[int, int]) -> None:
    """From somewhere on the map to somewhere else on it."""
    board_map = app.board.query_one(MachineMap)
    areas = [area for area in (board_map._plan.areas if board_map._plan else ()) if area.y >= 0]
    top = board_map.content_region
    ends = []
    for number in dice:
        area = areas[number % len(areas)]
        at = top.offset + Offset(area.x, area.y - board_map.scroll_offset.y)
        ends.append(at if top.contains_point(at) else top.offset)
    await pilot.mouse_down(offset=ends[0])
    await pilot.hover(offset=ends[0] + Offset(1, 0))
    await pilot.hover(offset=ends[1])
    await pilot.mouse_up(offset=ends[1])


async def walk(name: str, steps: list[object]) -> None:
    machine, wishes, size = WALKS[name]
    control = PlayedControl(machine, wishes)
    first = control.places()
    async with panel(control, size) as (app, pilot):
        for step in steps:
            if isinstance(step, str):
                await pilot.press(step)
            elif app.screen is app.board:
                await drag(app, pilot, step)  # type: ignore[arg-type]
            await pilot.pause()
            if isinstance(app.screen, ConfirmScreen):
                # Most offers are taken, so that something happens; Enter on a refused one is no.
                await pilot.press("enter")
                await pilot.pause()
                if isinstance(app.screen, ConfirmScreen):
                    await pilot.press("escape")
                    await pilot.pause()
        for _ in range(4):  # back to the board, with nothing carried
            await pilot.press("escape")
            await pilot.pause()
        await until(pilot, lambda: app.screen is app.board)
        assert app.board.carrier.carry is None
        await until(pilot, lambda: app.view.snapshot is control.its_snapshots[-1])
        agree(app, control)
        while control.history.undo:
            left = len(control.history.done)
            await pilot.press("u")
            await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
            assert "Undo" in text(app)
            await pilot.press("enter")
            await until(pilot, partial(_has_steps, control, left - 1))
            await until(pilot, lambda: app.view.snapshot is control.its_snapshots[-1])
            await until(pilot, lambda: app.screen is app.board)
        assert control.places() == first
        agree(app, control)


@pytest.mark.parametrize("name", WALKS)
def test_random_walks_on_the_board(name: str) -> None:
    @settings(
        max_examples=2,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(STEPS)
    def walked(steps: list[object]) -> None:
        asyncio.run(walk(name, steps))

    walked()


def test_a_long_walk() -> None:
    dice = random.Random(3)
    steps: list[object] = [
        dice.choice(KEYS) if dice.random() < 0.6 else (dice.randrange(9999), dice.randrange(9999))
        for _ in range(20)
    ]
    asyncio.run(walk("server, 120x40", steps))
