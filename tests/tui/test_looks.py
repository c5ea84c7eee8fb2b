"""How the panel looks, at the smallest and at a large size; nothing in it depends on a clock."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from engine.control import HeldLayout, HeldWish
from engine.core.layout import Instance
from tests.tui.machines import SERVER
from tests.tui.pilots import NARROW, WIDE, board_text, text, until
from tests.tui.scripted_control import ScriptedControl, instance, snapshot, two_instances
from tui.app import SlotdeckApp
from tui.screens.confirm import ConfirmScreen
from tui.screens.reading import ReadingScreen
from tui.screens.try_prompt import TryScreen

SIZES = pytest.mark.parametrize("size", [NARROW, WIDE], ids=["80x24", "200x60"])
Play = Callable[[Pilot[None]], Awaitable[None]]


async def board(pilot: Pilot[None]) -> None:
    app = pilot.app
    assert isinstance(app, SlotdeckApp)
    await until(pilot, lambda: "ready on http" in board_text(app))


async def offer(pilot: Pilot[None]) -> None:
    await board(pilot)
    await pilot.press("x")
    await until(pilot, lambda: isinstance(pilot.app.screen, ConfirmScreen))


async def answer(pilot: Pilot[None]) -> None:
    await board(pilot)
    await pilot.press("t")
    await until(pilot, lambda: isinstance(pilot.app.screen, TryScreen))
    await pilot.press("enter")
    await until(pilot, lambda: "close to it." in text(pilot.app))
    await until(pilot, lambda: "TTFT 61 ms" in text(pilot.app))


async def help_screen(pilot: Pilot[None]) -> None:
    await board(pilot)
    await pilot.press("question_mark")
    await until(pilot, lambda: isinstance(pilot.app.screen, ReadingScreen))


async def move(pilot: Pilot[None]) -> None:
    await board(pilot)
    await pilot.press("m", "right")
    await until(pilot, lambda: "can go to numa:1" in text(pilot.app))


async def save(pilot: Pilot[None]) -> None:
    await board(pilot)
    await pilot.press("w")
    await until(pilot, lambda: "enter write" in text(pilot.app))


def small() -> ScriptedControl:
    return ScriptedControl()


def server() -> ScriptedControl:
    chat = instance("chat", "numa:0", "0-7,32-39")
    web = instance("web", "core:16", "16,48", restarts=1)
    return ScriptedControl(SERVER, [snapshot(SERVER, (chat, web, two_instances()[1]))])


def saved() -> ScriptedControl:
    """Two instances from a layout of which the service knows no more than the text."""
    file = 'schema = 1\n\n# Quiet.\n[[instance]]\nname = "chat"\nslot = "core:0"   # ours\n'
    chat, coder = Instance(name="chat", slot="core:0"), Instance(name="coder", slot="core:1")
    wishes = HeldWish(chat, ""), HeldWish(coder, "")
    return ScriptedControl(its_layout=HeldLayout(wishes, "Office", "no-such-layout.toml", file))


LOOKS: dict[str, tuple[Callable[[], ScriptedControl], Play]] = {
    "board": (small, board),
    "server": (server, board),
    "offer": (small, offer),
    "try": (small, answer),
    "help": (small, help_screen),
    "move": (server, move),
    "save": (saved, save),
}


@SIZES
@pytest.mark.parametrize("look", LOOKS)
def test_look(look: str, size: tuple[int, int], snap_compare: Any) -> None:
    control, play = LOOKS[look]
    app = SlotdeckApp(control(), clock=lambda: 100.0)
    assert snap_compare(app, terminal_size=size, run_before=play)
