"""The screens beside the board, by keys and by mouse, at three sizes."""

from dataclasses import replace
from typing import Any

import pytest

from engine.control import (
    Difference,
    RestartInstances,
    StartInstances,
    StopInstances,
    Verification,
    Verified,
)
from engine.core.errors import ServiceUnreachable
from engine.core.status import Happening, Snapshot, State, TokenRates
from engine.service.past import Past
from tests.tui.machines import SMALL
from tests.tui.pilots import click, panel, text, toasts, until
from tests.tui.scripted_control import ScriptedControl, instance, snapshot, two_instances
from tui.app import SlotdeckApp
from tui.screens.confirm import ConfirmScreen
from tui.screens.events import EventsScreen
from tui.screens.instance import InstanceScreen
from tui.screens.instances import InstancesScreen
from tui.screens.layouts import LayoutsScreen
from tui.screens.quit import QuitScreen
from tui.screens.reading import ReadingScreen
from tui.terminal import TerminalKind
from tui.trails import METRICS
from tui.widgets.instance_table import InstanceTable
from tui.widgets.log_pane import LogPane

SIZES = pytest.mark.parametrize(
    "size", [(80, 24), (120, 40), (200, 60)], ids=["80x24", "120x40", "200x60"]
)


def five() -> Snapshot:
    """Figures that sort otherwise than names do."""
    rows = [
        instance(f"i{at}", f"core:{at % 2}", str(at % 2), rss_bytes=(at * 7 % 5 + 1) << 30)
        for at in range(4)
    ]
    return snapshot(SMALL, (*rows, two_instances()[1]))


def many() -> ScriptedControl:
    return ScriptedControl(its_snapshots=[five()])


def listed(app: SlotdeckApp) -> tuple[str, ...]:
    return app.screen.query_one(InstanceTable).listed


# Instances


@SIZES
async def test_instances_are_sorted_and_filtered_by_keys(size: tuple[int, int]) -> None:
    async with panel(many(), size) as (app, pilot):
        await pilot.press("i")
        await until(pilot, lambda: isinstance(app.screen, InstancesScreen))
        await until(pilot, lambda: "› instances" in text(app))
        await until(pilot, lambda: listed(app) == ("i0", "i1", "i2", "i3", "coder"))
        await pilot.press("greater_than_sign")
        await until(pilot, lambda: listed(app) == ("coder", "i0", "i1", "i2", "i3"))
        await pilot.press("v")
        await until(pilot, lambda: listed(app) == ("i3", "i2", "i1", "i0", "coder"))
        await pilot.press("less_than_sign", "v", "slash", *"!i0 core:0")
        await until(pilot, lambda: listed(app) == ("i2",))
        assert app.view.selected == "i2"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.focused, InstanceTable))
        assert "1 of 5" in text(app)
        await pilot.press("escape")
        await until(pilot, lambda: len(listed(app)) == 5)
        assert isinstance(app.screen, InstancesScreen)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.board)


@SIZES
async def test_instances_by_mouse(size: tuple[int, int]) -> None:
    async with panel(many(), size) as (app, pilot):
        app.do_instances()
        await until(pilot, lambda: "5 instances" in text(app))
        await click(pilot, app, "out tok/s")
        await until(pilot, lambda: listed(app)[-1] == "coder")
        await click(pilot, app, "instance  ")
        await until(pilot, lambda: listed(app)[0] == "coder")
        await click(pilot, app, "i2 ")
        await until(pilot, lambda: app.view.selected == "i2")
        await click(pilot, app, "i3 ", times=2)
        await until(pilot, lambda: isinstance(app.screen, InstanceScreen))
        assert "instances › i3" in text(app)


async def test_plots_of_a_new_panel_do_not_start_empty() -> None:
    past = Past()
    for at in (0.0, 1.0, 2.0):
        past.add(at, (instance("chat", "core:0", "0", tokens_per_s=TokenRates(output=77.0)),))
    async with panel(ScriptedControl(its_past=past.told(3.0))) as (app, pilot):

        def seen() -> list[float | None]:
            now = app.desk.clock()
            return app.trails.series("chat", METRICS[0], now=now, step_s=60.0, steps=2)

        await until(pilot, lambda: any((value or 0) > 60 for value in seen()))


async def test_actions_are_for_all_that_are_marked() -> None:
    control = many()
    async with panel(control) as (app, pilot):
        await pilot.press("i")
        await until(pilot, lambda: isinstance(app.screen, InstancesScreen))
        await pilot.press("space", "space")
        await until(pilot, lambda: app.view.marked == {"i0", "i1"})
        assert "2 marked" in text(app)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, InstancesScreen))
        await pilot.press("asterisk")
        await until(pilot, lambda: len(app.view.marked) == 5)
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, InstancesScreen))
        await pilot.press("asterisk")
        await until(pilot, lambda: not app.view.marked)
        await pilot.press("r")
        await until(pilot, lambda: any("Restart: It is R" in each for each in toasts(app)))
        await pilot.press("R")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert "Restart i2" in text(app)
        assert control.offered == [
            StopInstances(("i0", "i1")),
            StartInstances(("coder",)),  # of all five, the one that does not run
            RestartInstances(("i2",)),
        ]


async def test_marks_end_with_their_instances_and_with_escape() -> None:
    control = many()
    async with panel(control) as (app, pilot):
        await pilot.press("i", "space", "space")
        await until(pilot, lambda: len(app.view.marked) == 2)
        left = replace(five(), instances=five().instances[1:])
        control.tell(left)
        await until(pilot, lambda: app.view.marked == {"i1"})
        await pilot.press("escape")
        await until(pilot, lambda: not app.view.marked)
        assert isinstance(app.screen, InstancesScreen)


# One instance


@SIZES
async def test_one_instance_by_keys(size: tuple[int, int]) -> None:
    control = ScriptedControl()
    async with panel(control, size) as (app, pilot):
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, InstanceScreen))
        await until(pilot, lambda: "output 41.3 tokens/s" in text(app))
        assert "CPU 0.98 cores" in text(app)
        await pilot.press("2")
        await until(pilot, lambda: "loading weights" in text(app))
        assert isinstance(app.focused, LogPane)
        await pilot.press("tab")
        await until(pilot, lambda: "numactl -C 0" in text(app))
        assert "KMP_BLOCKTIME=1" in text(app)
        assert "driver: torch" in text(app)
        await pilot.press("tab")
        await until(pilot, lambda: "all as asked for" in text(app))
        await pilot.press("shift+tab", "left", "left")
        await until(pilot, lambda: "output 41.3 tokens/s" in text(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.board)


@SIZES
async def test_one_instance_by_mouse(size: tuple[int, int]) -> None:
    async with panel(ScriptedControl(), size) as (app, pilot):
        await click(pilot, app, "chat     ", times=2)
        await until(pilot, lambda: isinstance(app.screen, InstanceScreen))
        for tab, words in (
            ("3 command", "numactl -C 0"),
            ("4 checks", "all as asked for"),
            ("2 log", "loading weights"),
        ):
            await click(pilot, app, tab)
            await until(pilot, lambda words=words: words in text(app))  # type: ignore[misc]


async def test_a_search_in_the_log() -> None:
    lines = "".join(f"line {at} {'needle' if at % 100 == 7 else ''}\n" for at in range(400))
    control = ScriptedControl(log_text=lines + "ready on\n")
    async with panel(control) as (app, pilot):
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, InstanceScreen))
        await pilot.press("slash")
        pane = app.screen.query_one(LogPane)
        await until(pilot, lambda: len(pane.lines) > 400)
        await pilot.press(*"NEEDLE", "enter")
        await until(pilot, lambda: "line 307 needle" in text(app))
        assert "4 lines with 'NEEDLE'" in text(app)
        await pilot.press("N")
        await until(pilot, lambda: "line 207 needle" in text(app))
        await pilot.press("n", "n")
        await until(pilot, lambda: "line 7 needle" in text(app))
        await pilot.press("y")
        await until(pilot, lambda: any("the line that was found" in each for each in toasts(app)))
        assert app.clipboard == "line 7 needle"
        await pilot.press("slash", "escape", "slash", *"absent", "enter")
        await until(pilot, lambda: any("'absent'" in each for each in toasts(app)))


async def test_what_differs_is_told_and_looked_at_again() -> None:
    control = ScriptedControl()
    answers = [
        Verified("chat", False, (Difference("affinity", "PU 0", "PU 1", "Repair it"),)),
        Verified("chat", True),
    ]
    asked: list[tuple[str, ...]] = []

    async def verify(names: tuple[str, ...] = (), *, repair: bool = False) -> Verification:
        asked.append(names)
        assert not repair
        return Verification((answers[len(asked) - 1],))

    control.verify = verify  # type: ignore[method-assign]
    async with panel(control) as (app, pilot):
        await pilot.press("d", "4")
        await until(pilot, lambda: "Repair it" in text(app))
        await pilot.press("a")
        await until(pilot, lambda: "all as asked for" in text(app))
        assert asked == [("chat",), ("chat",)]


async def test_a_command_that_cannot_be_told_says_why() -> None:
    control = ScriptedControl()

    async def command(name: str) -> Any:
        raise ServiceUnreachable(what="No answer", why=f"{name} is unknown", do="Wait")

    control.command = command  # type: ignore[method-assign]
    async with panel(control) as (app, pilot):
        await pilot.press("d", "3")
        await until(pilot, lambda: "No answer: chat is unknown. Wait" in text(app))


async def test_an_instance_that_leaves_closes_its_screen() -> None:
    control = ScriptedControl()
    async with panel(control) as (app, pilot):
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, InstanceScreen))
        control.tell(snapshot(SMALL, two_instances()[1:]))
        await until(pilot, lambda: app.screen is app.board)
        assert any("chat has left the list" in each for each in toasts(app))


async def test_a_sample_that_is_missing_is_a_gap() -> None:
    now = [100.0]
    control = ScriptedControl()
    async with panel(control, clock=lambda: now[0]) as (app, pilot):
        for at in range(101, 111):
            if at not in (104, 105, 106, 107):
                now[0] = float(at)
                control.tell(replace(five(), instances=two_instances(), sampled_at=str(at)))
                await until(pilot, lambda: app.view.snapshot is control.its_snapshots[-1])
        await pilot.press("d")
        await until(pilot, lambda: "output 41.3" in text(app))
        bottom = next(line for line in text(app).split("\n") if "····" in line)
        assert "████····███" in bottom


# Events


@SIZES
async def test_errors_stay_among_the_events(size: tuple[int, int]) -> None:
    def fails(_: object) -> Any:
        raise ServiceUnreachable(what="No offer", why="it is gone", do="Wait a little")

    control = ScriptedControl(answer=fails)
    async with panel(control, size, utc=lambda: "2026-01-02T03:05:00") as (app, pilot):
        await pilot.press("x")
        await until(pilot, lambda: "No offer: it is gone. Wait a little" in toasts(app))
        crash = Happening("2026-01-02T03:06:00Z", "warning", "coder waits before it starts")
        first = control.its_snapshots[-1]
        control.tell(replace(first, happenings=(*first.happenings, crash)))
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, EventsScreen))
        await until(pilot, lambda: "coder waits" in text(app))
        lines = text(app).split("\n")
        order = [
            next(at for at, line in enumerate(lines) if words in line)
            for words in ("coder waits", "No offer: it is gone", "chat is ready")
        ]
        assert order == sorted(order)
        assert "03:05:00 error    panel" in text(app)
        await pilot.press("f")
        await until(pilot, lambda: "warnings and errors: 2 of 3" in text(app))
        await pilot.press("f")
        await until(pilot, lambda: "errors: 1 of 3" in text(app))
        await pilot.press("f", "slash", *"ready")
        await until(pilot, lambda: "all events: 1 of 3" in text(app))
        await pilot.press("enter", "y")
        await until(pilot, lambda: "chat is ready" in app.clipboard)


# Everywhere


@pytest.mark.parametrize("page", ["i", "d", "o", "e", "D"])
async def test_every_page_tells_its_keys_and_leads_on(page: str) -> None:
    async with panel(ScriptedControl()) as (app, pilot):
        await pilot.press(page)
        await until(pilot, lambda: "esc Back" in text(app))
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, ReadingScreen))
        assert "close this" in text(app)
        await pilot.press("escape", "q")
        await until(pilot, lambda: isinstance(app.screen, QuitScreen))
        await pilot.press("escape")
        other = "e" if page != "e" else "o"
        await pilot.press(other)
        await until(pilot, lambda: isinstance(app.screen, EventsScreen | LayoutsScreen))
        assert len(app.screen_stack) == 2
        await pilot.press("m")  # for which the map is needed
        await until(pilot, lambda: app.screen is app.board)
        assert "Moving" in text(app)


@pytest.mark.parametrize("page", ["i", "d", "o", "e", "D"])
async def test_no_size_breaks_a_page(page: str) -> None:
    async with panel(ScriptedControl()) as (app, pilot):
        await pilot.press(page)
        for size in ((1, 1), (10, 3), (40, 10), (300, 90), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.press("down", "up")
        await until(pilot, lambda: "esc Back" in text(app))


async def test_the_palette_offers_what_the_page_has() -> None:
    async with panel(ScriptedControl()) as (app, pilot):
        await pilot.press("i")
        await until(pilot, lambda: isinstance(app.screen, InstancesScreen))
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert titles[0] == "Back (esc)"
        assert "Filter (/)" in titles
        assert "Layouts (o)" in titles
        assert len(titles) == len(set(titles))


async def test_keys_of_the_users_own_choice() -> None:
    control = ScriptedControl()
    async with panel(control, keys={"stop": "z", "help": "f1"}) as (app, pilot):
        assert "z Stop" in text(app)
        await pilot.press("x")
        await pilot.pause()
        assert control.offered == []
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, ReadingScreen))
        await pilot.press("escape", "z")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))


async def test_the_mouse_is_given_away_and_taken_back() -> None:
    async with panel(ScriptedControl(), (120, 40)) as (app, pilot):
        await pilot.press("M")
        await until(pilot, lambda: "M mouse is the terminal's" in text(app))
        await pilot.press("M")
        await until(pilot, lambda: "mouse is the terminal's" not in text(app))


async def test_where_nothing_can_be_copied_it_says_so() -> None:
    kind = TerminalKind("16", no_clipboard="the Linux console has no clipboard")
    async with panel(ScriptedControl(), kind=kind) as (app, pilot):
        await pilot.press("d", "3", "y")
        await until(pilot, lambda: any("no clipboard" in each for each in toasts(app)))
        app.copy("x" * 80_000, "much")
        await until(pilot, lambda: len(toasts(app)) == 2)
        assert app.clipboard == ""


async def test_the_other_theme_and_back() -> None:
    async with panel(ScriptedControl()) as (app, pilot):
        commands = {each.title: each for each in app.get_system_commands(app.screen)}
        commands["Light colours"].callback()
        await pilot.pause()
        assert app.current_theme.dark is False
        commands = {each.title: each for each in app.get_system_commands(app.screen)}
        commands["Dark colours"].callback()
        assert app.current_theme.dark


async def test_what_is_known_stands_in_the_first_frame() -> None:
    control = ScriptedControl(gone=True)
    first = SMALL, control.its_snapshots[-1]
    app = SlotdeckApp(control, first=first, retry_s=60.0, clock=lambda: 100.0)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert "NUMA 0" in text(app)
        assert "● ready" in text(app)
        assert app.view.selected == "chat"


async def test_stop_where_the_state_does_not_allow_it() -> None:
    states = (State.STOPPED, State.STOPPING)
    rows = tuple(instance(f"i{at}", "core:0", "0", state=state) for at, state in enumerate(states))
    control = ScriptedControl(its_snapshots=[snapshot(SMALL, rows)])
    app = SlotdeckApp(control, clock=lambda: 100.0)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.view.selected == "i0")
        await pilot.press("i", "asterisk", "x")
        await until(pilot, lambda: any("none of the 2" in each for each in toasts(app)))
        assert control.offered == []
