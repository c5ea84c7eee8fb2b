"""The layouts screen, by keys and by mouse: compared with what runs, and applied."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine.control import ApplyLayout
from engine.core.errors import ServiceUnreachable
from tests.tui.pilots import click, panel, text, toasts, until
from tests.tui.scripted_control import ScriptedControl
from tui.screens.confirm import ConfirmScreen
from tui.screens.layouts import LayoutsScreen

SIZES = pytest.mark.parametrize(
    "size", [(80, 24), (120, 40), (200, 60)], ids=["80x24", "120x40", "200x60"]
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.toml").write_text('# My idea.\nschema = 1\nname = "Mine"\n')
    return tmp_path


@SIZES
async def test_layouts_are_compared_and_applied(size: tuple[int, int], folder: Path) -> None:
    control = ScriptedControl()
    async with panel(control, size, layouts=folder) as (app, pilot):
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, LayoutsScreen))
        await until(pilot, lambda: "new on numa:0" in text(app))
        assert "My idea." in text(app)
        assert "keeps  chat as they are" in text(app)
        await pilot.press("2")
        await until(pilot, lambda: "schema = 1" in text(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert "Apply the layout" in text(app)
        await pilot.press("enter")
        await until(pilot, lambda: len(control.applied) == 1)
        await until(pilot, lambda: isinstance(app.screen, LayoutsScreen))
        changes = [each for each in control.offered if isinstance(each, ApplyLayout)]
        assert changes[-1] == ApplyLayout(
            str(folder / "mine.toml"), (folder / "mine.toml").read_text(), str(folder)
        )


@pytest.mark.parametrize("keys", [("o",), ("d", "3"), ("d", "4")], ids=" ".join)
async def test_an_answer_that_comes_after_the_screen_was_closed(keys: tuple[str, ...]) -> None:
    control = ScriptedControl()
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def late(*_: object, **__: object) -> Any:
        asked.set()
        await go_on.wait()
        raise ServiceUnreachable(what="Too late", why="nobody looks", do="Nothing")

    control.offer = control.command = control.verify = late  # type: ignore[method-assign]
    async with panel(control) as (app, pilot):
        await pilot.press(*keys)
        await asked.wait()
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.board)
        go_on.set()
        await pilot.pause()
        assert toasts(app) == []


@SIZES
async def test_layouts_by_mouse(size: tuple[int, int], folder: Path) -> None:
    async with panel(ScriptedControl(), size, layouts=folder) as (app, pilot):
        app.do_layouts()
        await until(pilot, lambda: "ab-dual.toml" in text(app))
        await click(pilot, app, "ab-dual.toml")
        await until(pilot, lambda: "Does the second card" in text(app))
        await click(pilot, app, "2 file")
        await until(pilot, lambda: 'engine = "ipex-llm"' in text(app))


async def test_a_panel_that_only_looks_applies_no_layout(folder: Path) -> None:
    control = ScriptedControl()
    async with panel(control, layouts=folder, readonly=True) as (app, pilot):
        await pilot.press("o")
        await until(pilot, lambda: "new on numa:0" in text(app))
        await pilot.press("enter")
        await until(pilot, lambda: any("--readonly" in each for each in toasts(app)))
        assert not isinstance(app.screen, ConfirmScreen)
