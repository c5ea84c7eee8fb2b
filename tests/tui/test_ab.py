"""A/B in the panel: by keys and by mouse, on a comparison that tells what the test says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from engine.core.comparing.telling import Failed, Planned, Told
from tests.tui.machines import SERVER, SMALL
from tests.tui.pilots import NARROW, WIDE, panel, text, toasts, until
from tests.tui.played_comparison import (
    BACK,
    BLOCK,
    FILE,
    JUDGED,
    KEPT,
    MIXED,
    ONE,
    PLANNED,
    SENTENCE,
    TWO,
    WON,
    PlayedComparison,
    paired,
)
from tests.tui.played_control import PlayedControl, wish
from tests.tui.scripted_control import ScriptedControl, instance, snapshot
from tui.actions import BY_ID
from tui.app import SlotdeckApp
from tui.present.ab_state import AbState, Phase, after, begun
from tui.present.ab_text import ab_lines
from tui.present.glyphs import ASCII, UNICODE, Glyphs
from tui.present.ink import plain
from tui.screens.ab import AbScreen
from tui.screens.ab_leave import AbLeaveScreen
from tui.screens.confirm import ConfirmScreen
from tui.screens.quit import QuitScreen
from tui.view import View

SIZES = pytest.mark.parametrize("size", [NARROW, WIDE], ids=["80x24", "200x60"])


def shown(pilot: Pilot[None], words: str) -> bool:
    """However it is wrapped."""
    return words in " ".join(text(pilot.app).replace("│", " ").split())


async def offered(app: SlotdeckApp, pilot: Pilot[None]) -> AbScreen:
    """An A/B of where x is and where its move would lead."""
    await pilot.press("m", "right", "right", "enter")
    await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
    await pilot.press("a")
    await until(pilot, lambda: isinstance(app.screen, AbScreen) and shown(pilot, "stops x"))
    assert isinstance(app.screen, AbScreen)
    return app.screen


async def running(app: SlotdeckApp, pilot: Pilot[None]) -> AbScreen:
    screen = await offered(app, pilot)
    await pilot.press("enter")
    await until(pilot, lambda: screen.state.phase is Phase.RUNNING)
    return screen


def control() -> PlayedControl:
    return PlayedControl(SMALL, (wish("x", "core:0"),))


@SIZES
async def test_a_whole_comparison_by_keys_and_the_winner_is_kept(size: tuple[int, int]) -> None:
    ab, service = PlayedComparison(), control()
    async with panel(service, size, compare=ab) as (app, pilot):
        screen = await offered(app, pilot)
        assert not service.applied, "nothing has moved"
        assert shown(pilot, "x: 2 requests in flight have 10 s to finish")
        assert shown(pilot, "at most 15 min")
        assert shown(pilot, f"{TWO} would leave out y")
        await pilot.press("w")
        await until(pilot, lambda: toasts(app) == ["A/B: nothing is measured yet"])
        await pilot.press("p")
        await until(pilot, lambda: len(ab.asked) == 2 and screen.state.phase is Phase.OFFERED)
        assert ab.asked[0][:3] == ("--move", "x", "core:1")
        assert ab.asked[1][-4:] == ("--pairs", "20", "--max-time", "900")
        assert ab.orders == ["stop"], "the one that was not wanted ends"
        await pilot.press("enter")
        await until(pilot, lambda: ab.orders == ["stop", "start"])
        ab.tell(paired(4, is_aa=True), paired(1, wide=2.0), paired(2), BLOCK)
        await until(pilot, lambda: shown(pilot, "measuring, 3 s"))
        await until(pilot, lambda: shown(pilot, "pair 2 of 10"))
        assert shown(pilot, "order AB BA")
        assert shown(pilot, "noise floor (A against A) 1.2 %")
        assert shown(pilot, "0.689 0.656–0.723")
        assert shown(pilot, "no verdict before 6 valid pairs")
        await pilot.press("x")
        await until(pilot, lambda: "a comparison runs; end it first (esc)" in toasts(app)[-1])
        ab.tell(JUDGED, WON)
        await until(pilot, lambda: shown(pilot, SENTENCE))
        assert shown(pilot, "x, y are still stopped; without an answer it is rolled back in 10")
        await pilot.press("w")
        await until(pilot, lambda: ab.orders[2:] == [f"keep {TWO}"])
        assert f"slotdeck up {FILE}" in app.parting
        ab.tell(*KEPT)
        await until(pilot, lambda: shown(pilot, f"{TWO} is kept, and runs."))
        assert app.parting == ""
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.board)


async def test_without_a_winner_one_is_kept_by_its_number_or_all_is_rolled_back() -> None:
    ab = PlayedComparison()
    async with panel(control(), compare=ab) as (app, pilot):
        await running(app, pilot)
        ab.tell(JUDGED, MIXED)
        await until(pilot, lambda: shown(pilot, f"1 keeps {ONE}"))
        await pilot.press("w")
        await until(pilot, lambda: "there is no winner: " in toasts(app)[-1])
        await pilot.press("3", "2", "r")
        assert ab.orders == ["start", f"keep {TWO}", "back"]
        ab.tell(*BACK)
        await until(pilot, lambda: shown(pilot, "Rolled back: x, y run again."))


@SIZES
async def test_escape_and_ctrl_c_ask_and_what_was_measured_is_told(size: tuple[int, int]) -> None:
    ab = PlayedComparison()
    async with panel(control(), size, compare=ab) as (app, pilot):
        await running(app, pilot)
        ab.tell(paired(1))
        await until(pilot, lambda: shown(pilot, "pair 1 of 10"))
        for key in ("escape", "ctrl+c"):
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, AbLeaveScreen))
            assert shown(pilot, "What ran before is started again: x, y.")
            await pilot.press("escape")
            await until(pilot, lambda: isinstance(app.screen, AbScreen))
        assert ab.orders == ["start"]
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, AbLeaveScreen))
        await pilot.press("enter")
        await until(pilot, lambda: ab.orders == ["start", "stop"])
        ab.tell(JUDGED, *BACK)
        await until(pilot, lambda: shown(pilot, "all blocks: /state/ab/one.json"))
        await until(pilot, lambda: shown(pilot, "Rolled back: x, y run again."))


async def test_two_layouts_by_mouse_and_q_leaves_it_to_put_back(tmp_path: Path) -> None:
    text_of = 'schema = 1\n[[instance]]\nname = "x"\nmodel = "m"\n'
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(text_of)
    ab = PlayedComparison()
    async with panel(control(), WIDE, compare=ab, layouts=tmp_path) as (app, pilot):
        await pilot.press("o")
        await until(pilot, lambda: shown(pilot, "one.toml") and shown(pilot, "a A/B"))
        await pilot.press("a")
        await until(pilot, lambda: "mark one layout with space" in toasts(app)[-1])
        await pilot.press("home", "space", "down")
        await until(pilot, lambda: shown(pilot, "A one.toml") or shown(pilot, "A ○ one.toml"))
        await pilot.click("#keys", offset=(at_key(app, "a A/B"), 0))
        await until(pilot, lambda: isinstance(app.screen, AbScreen) and shown(pilot, "stops x"))
        assert ab.asked[0][:2] == (str(tmp_path / "one.toml"), str(tmp_path / "two.toml"))
        await pilot.click("#keys", offset=(at_key(app, "enter Start"), 0))
        await until(pilot, lambda: ab.orders == ["start"])
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, AbLeaveScreen))
        await pilot.press("enter")
        await until(pilot, lambda: ab.gone == 1)
    assert "starts again what ran before (x, y)" in app.parting


def at_key(app: SlotdeckApp, words: str) -> int:
    """Where the footer has it."""
    return text(app).split("\n")[-1].index(words) + 1


async def test_a_comparison_that_dies_is_told_with_the_way_back() -> None:
    ab = PlayedComparison()
    async with panel(control(), compare=ab) as (app, pilot):
        await running(app, pilot)
        ab.tell(Failed("The comparison ended with signal 9", "it said nothing", ""))
        await until(pilot, lambda: shown(pilot, "The comparison ended with signal 9"))
        assert shown(pilot, f"`slotdeck up {FILE}` starts it: x, y")
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, QuitScreen))


def test_the_key_says_why_it_does_not_work() -> None:
    two_cores, card = instance("a", "core:0-1", "0-1"), instance("g", "gpu:0", "0-3", gpus=(0,))
    live = View(selected="a").seen(SERVER, snapshot(SERVER, (two_cores, card)), 1.0)
    why = BY_ID["ab"].why_not
    assert why(live) is None
    assert why(replace(live, selected="g")) is None
    for view, words in (
        (replace(live, readonly=True), "--readonly"),
        (replace(live, host="me@there"), "open the panel on me@there"),
        (replace(live, marked=frozenset("ag")), "one is compared at a time"),
        (replace(live, machine=replace(SERVER, gpus=SERVER.gpus[:1]), selected="g"), "one card"),
        (replace(live, selected="a", machine=replace(SERVER, live=False)), "recorded machine"),
    ):
        assert words in (why(view) or "")
    lone = snapshot(SMALL, (instance("a", "core:0", "0"),))
    assert "a has one core" in (why(View().seen(SMALL, lone, 1.0)) or "")


async def test_a_readonly_panel_compares_no_layouts(tmp_path: Path) -> None:
    async with panel(ScriptedControl(), readonly=True, layouts=tmp_path) as (app, pilot):
        await pilot.press("o")
        await until(pilot, lambda: shown(pilot, "shipped"))
        await pilot.press("space", "down", "a")
        await until(pilot, lambda: bool(toasts(app)))
        assert toasts(app)[-1] == "A/B: this panel was opened with --readonly"


def test_look(snap_compare: Any) -> None:
    ab = PlayedComparison()

    async def play(pilot: Pilot[None]) -> None:
        app = pilot.app
        assert isinstance(app, SlotdeckApp)
        await until(pilot, lambda: "ready on" in text(app))
        await running(app, pilot)
        ab.tell(paired(4, is_aa=True), paired(1), paired(2), paired(3), BLOCK)
        await until(pilot, lambda: shown(pilot, "pair 3 of 10"))
        await until(pilot, lambda: shown(pilot, "measuring, 3 s"))

    app = SlotdeckApp(control(), clock=lambda: 100.0, compare=ab)
    assert snap_compare(app, terminal_size=NARROW, run_before=play)


def drawn(*lines: Told, width: int = 76, glyphs: Glyphs = UNICODE) -> list[str]:
    state = AbState()
    for line in lines:
        state = after(state, line, 100.0)
        if isinstance(line, Planned):
            state = begun(state, 100.0) if len(lines) > 1 else state
    return [plain(line) for line in ab_lines(state, width, 103.0, glyphs)]


HALVES = ("one instance", "two halves")
SEVERAL = replace(PLANNED, comparisons=(*PLANNED.comparisons, HALVES))
SCENES: dict[str, tuple[Told, ...]] = {
    "offered": (PLANNED,),
    "running": (PLANNED, paired(4, is_aa=True), paired(2, wide=9.0), BLOCK),
    "second": (SEVERAL, paired(2), JUDGED, replace(BLOCK, comparison=2)),
    "deciding": (PLANNED, JUDGED, MIXED),
    "failed": (PLANNED, paired(2), JUDGED, Failed("x did not start", "no room", "Free some")),
    "kept": (PLANNED, JUDGED, WON, *KEPT),
}


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_every_phase_fits_80_columns(scene: str, glyphs: Glyphs) -> None:
    lines = drawn(*SCENES[scene], glyphs=glyphs)
    assert max(map(len, lines)) <= 76
    assert glyphs is not ASCII or all(line.isascii() for line in lines)


def test_times_and_rates_have_tables_of_their_own() -> None:
    for scene in ("running", "deciding"):
        lines = drawn(*SCENES[scene])
        times = next(at for at, line in enumerate(lines) if "ms, lower is better" in line)
        rates = next(at for at, line in enumerate(lines) if "rates, higher is better" in line)
        assert any("TTFT" in line for line in lines[times:rates])
        assert not any("tokens/s" in line for line in lines[times:rates])
        assert any("output tokens/s" in line for line in lines[rates:])


def test_the_next_of_several_begins_with_nothing_measured() -> None:
    lines = drawn(*SCENES["second"])
    assert lines[0] == "comparison 2 of 2"
    assert "one instance" in lines[1]
    assert not any("TTFT" in line for line in lines)
    assert SENTENCE in lines


def test_too_little_time_for_a_verdict_is_said_after_the_first_pair() -> None:
    slow = replace(paired(1, is_aa=True), elapsed_s=300.0)
    lines = " ".join(drawn(PLANNED, slow))
    assert "At this pace 6 pairs take 50 min, and it may take 15 min: no verdict" in lines
    assert "At this pace" not in " ".join(drawn(PLANNED, replace(slow, elapsed_s=80.0)))


def test_only_who_died_without_a_word_is_told_on_by_us() -> None:
    died = Failed("The comparison ended with signal 9", "it said nothing", "")
    assert any(FILE in line for line in drawn(PLANNED, paired(1), died))
    assert "Nothing was stopped" in drawn(died)
    error = Failed("x did not start", "no room", "Read its log")
    lines = drawn(PLANNED, paired(1), *BACK, error)
    assert not any(FILE in line for line in lines)
    assert "Read its log" in lines
