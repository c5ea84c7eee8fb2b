"""Saving from the panel: the path, what would change, and nothing written before Enter."""

from pathlib import Path

import pytest

from engine.control import ApplyLayout, HeldLayout, HeldWish
from engine.core.layout import Instance, parse_layout
from engine.layout_files import Saving
from tests.tui.machines import SMALL
from tests.tui.pilots import NARROW, WIDE, panel, question, text, toasts, until
from tests.tui.scripted_control import ScriptedControl, snapshot
from tui.present.glyphs import ASCII, UNICODE
from tui.present.ink import plain
from tui.present.saving_text import saving_lines
from tui.screens.layouts import LayoutsScreen
from tui.screens.save_layout import SaveScreen

SIZES = pytest.mark.parametrize("size", [NARROW, WIDE], ids=["80x24", "200x60"])
TEXT = """\
schema = 1
name = "Office"

# The chat.
[[instance]]
name = "chat"
model = "m"
slot = "core:0"   # quiet
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "office.toml"
    path.write_text(TEXT)
    return path


def said(path: Path) -> str:
    return path.read_text()


def say(path: Path, words: str) -> None:
    path.write_text(words)


def control(file: Path, slot: str = "core:1") -> ScriptedControl:
    wish = HeldWish(Instance(name="chat", model="m", slot=slot), str(file.parent))
    return ScriptedControl(its_layout=HeldLayout((wish,), "Office", str(file), TEXT))


@SIZES
async def test_w_shows_what_changes_and_enter_writes_it(file: Path, size: tuple[int, int]) -> None:
    async with panel(control(file), size) as (app, pilot):
        await pilot.press("w")
        await until(pilot, lambda: "enter write" in text(app))
        assert question(app).value == str(file)
        assert '- slot = "core:0"   # quiet' in text(app)
        assert '+ slot = "core:1"   # quiet' in text(app)
        assert "+ [expect]" in text(app)
        assert said(file) == TEXT
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, SaveScreen))
        assert toasts(app) == [f"Saved: {file}"]
        assert said(file).startswith(TEXT.replace("core:0", "core:1"))
        await pilot.press("w")
        await until(pilot, lambda: "says what runs already" in text(app))
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, SaveScreen))


async def test_escape_writes_nothing(file: Path) -> None:
    async with panel(control(file)) as (app, pilot):
        await pilot.press("w")
        await until(pilot, lambda: "enter write" in text(app))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, SaveScreen))
        assert said(file) == TEXT


async def test_the_path_may_be_another(file: Path, tmp_path: Path) -> None:
    async with panel(control(file)) as (app, pilot):
        await pilot.press("w")
        await until(pilot, lambda: "enter write" in text(app))
        question(app).value = str(tmp_path / "no/such.toml")
        await until(pilot, lambda: "there is no folder" in text(app))
        await pilot.press("enter")
        await until(pilot, lambda: len(toasts(app)) == 1)
        assert "Create the folder" in toasts(app)[0]
        new = tmp_path / "new.toml"
        question(app).value = str(new)
        await until(pilot, lambda: "A new file:" in text(app))
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, SaveScreen))
        assert parse_layout(said(new), name="new").instances[0].slot == "core:1"
        assert "# The chat." in said(new)


async def test_another_layout_is_named_as_such(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    say(other, TEXT.replace("Office", "Home"))
    async with panel(control(file)) as (app, pilot):
        await pilot.press("w")
        await until(pilot, lambda: "enter write" in text(app))
        question(app).value = str(other)
        await until(pilot, lambda: "This file is another layout" in text(app))


@SIZES
async def test_a_name_leads_among_the_users_own_layouts(
    file: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    folder = tmp_path / "config/layouts"
    async with panel(control(file), size, layouts=folder) as (app, pilot):
        await pilot.press("o")
        await until(pilot, lambda: "shipped" in text(app))
        await pilot.press("end", "w")  # a shipped one stays as it is
        await until(pilot, lambda: isinstance(app.screen, SaveScreen))
        await until(pilot, lambda: question(app).value == "sub-numa-clusters")
        question(app).value = "evening"
        await until(pilot, lambda: '+ name = "evening"' in text(app))
        assert not folder.exists()
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, LayoutsScreen))
        saved = folder / "evening.toml"
        await until(pilot, lambda: app.screen.chosen is not None)  # type: ignore[attr-defined]
        await until(pilot, lambda: app.screen.chosen.path == saved)  # type: ignore[attr-defined]
        assert "# The chat." in said(saved)
        assert parse_layout(said(saved), name="").name == "evening"
        await until(pilot, lambda: "keeps  chat as they are" in text(app))
        await pilot.press("w")
        await until(pilot, lambda: isinstance(app.screen, SaveScreen))
        assert question(app).value == str(saved)


async def test_a_name_that_is_taken_is_asked_about(file: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken.toml"
    say(taken, TEXT.replace("Office", "Home"))
    async with panel(control(file), layouts=tmp_path) as (app, pilot):
        await pilot.press("w")
        await until(pilot, lambda: "enter write" in text(app))
        question(app).value = "taken"
        await until(pilot, lambda: "This file is another layout" in text(app))
        await pilot.press("enter")
        await until(pilot, lambda: "is there already. Enter replaces it" in text(app))
        assert "core:0" in said(taken)
        await pilot.press("enter")
        await until(pilot, lambda: "core:1" in said(taken))
        assert 'name = "Home"' in said(taken)


async def test_a_file_that_changed_meanwhile_is_looked_at_again(file: Path) -> None:
    async with panel(control(file)) as (app, pilot):
        await pilot.press("w")
        await until(pilot, lambda: "enter write" in text(app))
        say(file, TEXT.replace("quiet", "loud"))
        await pilot.press("enter")
        await until(pilot, lambda: "# loud" in text(app))
        assert "changed since" in toasts(app)[0]
        assert "core:0" in said(file)
        await pilot.press("enter")
        await until(pilot, lambda: "core:1" in said(file))


async def test_a_file_that_is_no_layout(file: Path) -> None:
    say(file, "[[instance")
    async with panel(control(file)) as (app, pilot):
        await pilot.press("w")
        await until(pilot, lambda: "Expected ']]'" in text(app))
        await pilot.press("enter")
        await until(pilot, lambda: len(toasts(app)) == 1)
        assert said(file) == "[[instance"


async def test_the_file_that_the_panel_was_opened_with_comes_first(file: Path) -> None:
    asked = ApplyLayout("opened.toml", TEXT, str(file.parent))
    async with panel(control(file), layout=asked) as (app, pilot):
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press("escape")
        await pilot.press("w")
        await until(pilot, lambda: isinstance(app.screen, SaveScreen))
        assert question(app).value == str(file.parent / "opened.toml")


async def test_why_not() -> None:
    bare = ScriptedControl(its_snapshots=[snapshot(SMALL, ())])
    async with panel(bare) as (app, pilot):
        await pilot.press("w")
        await until(pilot, lambda: toasts(app) == ["Save: there is no instance yet"])
    async with panel(ScriptedControl(), readonly=True) as (app, pilot):
        await pilot.press("w")
        await until(pilot, lambda: any("--readonly" in one for one in toasts(app)))
    async with panel(ScriptedControl()) as (app, pilot):
        await pilot.press("w")
        await until(pilot, lambda: "There is nothing to save" in text(app))


def test_changes_far_apart_are_shown_with_a_line_around_each() -> None:
    before = "".join(f"line {number}\n" for number in range(20))
    after = before.replace("line 3\n", "line 3b\n").replace("line 15\n", "")
    made = Saving(Path("f"), before, after, is_own=True, notes=("a: X is left out",))
    assert [plain(line) for line in saving_lines(made, 40, UNICODE)] == [
        "a: X is left out",
        *("  line 2", "- line 3", "+ line 3b", "  line 4", "  …"),
        *("  line 14", "- line 15", "  line 16"),
    ]
    narrow = [plain(line) for line in saving_lines(made, 8, ASCII)]
    assert max(map(len, narrow)) <= 8
