"""Opens the panel headless on a scripted control, and reads its screen."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from textual.geometry import Offset
from textual.pilot import Pilot
from textual.widgets import Input

from tests.tui.scripted_control import ScriptedControl
from tui.app import SlotdeckApp
from tui.widgets.machine_map import MachineMap

NARROW = (80, 24)
WIDE = (200, 60)


@asynccontextmanager
async def panel(
    control: ScriptedControl, size: tuple[int, int] = NARROW, **options: Any
) -> AsyncIterator[tuple[SlotdeckApp, Pilot[None]]]:
    """The app with its first snapshot shown; its clock stands still."""
    options.setdefault("clock", lambda: 100.0)
    options.setdefault("retry_s", 0.01)
    app = SlotdeckApp(control, **options)
    async with app.run_test(size=size) as pilot:
        if not control.gone:
            await until(pilot, lambda: app.view.snapshot is not None)
            await until(pilot, lambda: not app.view.selected or "ready on" in board_text(app))
        yield app, pilot


async def until(pilot: Pilot[None], condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a fact, not for a time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        await pilot.pause()
        if condition():
            return
        assert loop.time() < deadline, f"never happened; the screen says:\n{text(pilot.app)}"
        await asyncio.sleep(0.01)


def text(app: Any) -> str:
    """What the topmost screen shows."""
    return _strips(app.screen)


def board_text(app: SlotdeckApp) -> str:
    """What the board shows, also below a dialog."""
    return _strips(app.board)


def _strips(screen: Any) -> str:
    strips = screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


def toasts(app: SlotdeckApp) -> list[str]:
    """Titles and words of all toasts so far."""
    return [f"{each.title}: {each.message}" for each in app._notifications]


def find(app: SlotdeckApp, words: str) -> Offset:
    """Where the board shows these words."""
    for y, line in enumerate(board_text(app).split("\n")):
        if words in line:
            return Offset(line.index(words), y)
    raise AssertionError(f"{words!r} is not on the board:\n{board_text(app)}")


def find_on(app: SlotdeckApp, words: str) -> Offset:
    """Where the topmost screen shows these words."""
    for y, line in enumerate(text(app).split("\n")):
        if words in line:
            return Offset(line.index(words), y)
    raise AssertionError(f"{words!r} is not in sight:\n{text(app)}")


async def click(pilot: Pilot[None], app: SlotdeckApp, words: str, times: int = 1) -> None:
    at = find_on(app, words)
    await pilot.click(offset=(at.x + 1, at.y), times=times)


def cell(app: SlotdeckApp, slot: str) -> Offset:
    """A screen cell inside a slot of the map."""
    machine_map = app.board.query_one(MachineMap)
    assert machine_map._plan is not None
    area = machine_map._plan.area(slot)
    assert area is not None
    return machine_map.content_region.offset + Offset(area.x + 1, area.y)


def question(app: SlotdeckApp) -> Input:
    return app.screen.query_one(Input)
