"""Every key of the board, at the smallest and at a large size."""

import pytest

from engine.control import (
    ApplyLayout,
    MoveInstance,
    StartInstances,
    StartLoad,
    StopInstances,
    StopLoad,
)
from engine.core.errors import SlotError, StaleOffer
from engine.core.status import LoadStatus, Snapshot, State
from tests.tui.machines import SERVER, SMALL
from tests.tui.pilots import NARROW, WIDE, board_text, panel, question, text, toasts, until
from tests.tui.scripted_control import (
    REFUSED,
    ScriptedControl,
    instance,
    snapshot,
    two_instances,
)
from tui.screens.confirm import ConfirmScreen
from tui.screens.events import EventsScreen
from tui.screens.quit import QuitScreen
from tui.screens.reading import ReadingScreen
from tui.screens.try_prompt import TryScreen
from tui.widgets.instance_table import InstanceTable
from tui.widgets.log_pane import LogPane
from tui.widgets.machine_map import MachineMap

SIZES = pytest.mark.parametrize("size", [NARROW, WIDE], ids=["80x24", "200x60"])


@SIZES
async def test_first_sight(size: tuple[int, int]) -> None:
    async with panel(ScriptedControl(), size) as (app, _):
        seen = text(app)
        for words in (
            "1 package · 1 NUMA node · 2 cores · 2 PUs",
            "● live",
            "load off",
            "NUMA 0",
            "5.0 GiB free of 8.0 GiB",
            "● ready",
            "✗ failed",
            "out tok/s",
            "answered its first token",
            "ready on http://127.0.0.1:8001",
            "x Stop",
        ):
            assert words in seen, words


@SIZES
async def test_arrows_and_tab_reach_everything(size: tuple[int, int]) -> None:
    async with panel(ScriptedControl(), size) as (app, pilot):
        assert isinstance(app.focused, InstanceTable)
        await pilot.press("down")
        await until(pilot, lambda: app.view.selected == "coder")
        assert "model file not found" in text(app)
        await pilot.press("tab")
        assert isinstance(app.focused, LogPane)
        await pilot.press("tab")
        assert isinstance(app.focused, MachineMap)
        await pilot.press("down")
        await until(pilot, lambda: app.board.query_one(MachineMap).cursor == "core:0")
        assert "core:0 · PU 0 · chat" in text(app)
        await pilot.press("enter")
        await until(pilot, lambda: app.view.selected == "chat")


async def test_stop_shows_consequences_and_applies_on_enter() -> None:
    control = ScriptedControl()
    async with panel(control) as (app, pilot):
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert "1 request in flight has 30 s to finish" in text(app)
        assert control.applied == []
        await pilot.press("enter")
        await until(pilot, lambda: len(control.applied) == 1)
        assert control.offered == [StopInstances(("chat",))]
        await until(pilot, lambda: app.screen is app.board)


async def test_escape_drops_an_offer() -> None:
    control = ScriptedControl()
    async with panel(control) as (app, pilot):
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.board)
        assert control.applied == []


async def test_start_and_forget_are_for_what_does_not_run() -> None:
    control = ScriptedControl()
    async with panel(control) as (app, pilot):
        await pilot.press("s")
        await until(pilot, lambda: any("chat is already ready" in each for each in toasts(app)))
        await pilot.press("X")
        await until(pilot, lambda: any("stop it first" in each for each in toasts(app)))
        await pilot.press("down", "s")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.board)
        await pilot.press("X")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert control.offered == [
            StartInstances(("coder",)),
            StopInstances(("coder",), forget=True),
        ]


@SIZES
async def test_move_by_keys(size: tuple[int, int]) -> None:
    control = ScriptedControl(its_machine=SERVER, its_snapshots=[server_moment()])
    async with panel(control, size) as (app, pilot):
        await pilot.press("m")
        await until(pilot, lambda: "Moving chat" in text(app))
        assert "arrows choose a slot" in text(app)
        await pilot.press("right")
        await until(pilot, lambda: "can go to numa:1: PUs 8-15,40-47" in text(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert "moves  chat on numa:1" in text(app)
        assert control.applied == []
        await pilot.press("enter")
        await until(pilot, lambda: len(control.applied) == 1)
        assert control.offered[-1] == MoveInstance("chat", "numa:1")


async def test_move_says_no_and_escape_puts_back() -> None:
    control = ScriptedControl(
        its_machine=SERVER, its_snapshots=[server_moment()], answer=lambda _: REFUSED
    )
    async with panel(control) as (app, pilot):
        await pilot.press("m", "right")
        await until(pilot, lambda: "refused: 2 GiB more memory needed" in text(app))
        await pilot.press("escape")
        await until(pilot, lambda: "Moving" not in text(app))
        assert "x Stop" in text(app)


async def test_a_refused_offer_cannot_be_applied() -> None:
    control = ScriptedControl(answer=lambda _: REFUSED)
    async with panel(control) as (app, pilot):
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert "nothing can be applied" in text(app)
        await pilot.press("enter")
        await pilot.pause()
        assert control.applied == []
        assert isinstance(app.screen, ConfirmScreen)


async def test_a_stale_offer_is_replaced_by_the_new_plan() -> None:
    stale = StaleOffer(what="Old plan", why="coder has stopped", do="Look again")
    control = ScriptedControl(apply_errors=[stale])
    async with panel(control) as (app, pilot):
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("enter")
        await until(pilot, lambda: "This is the new plan" in text(app))
        assert "coder has stopped" in text(app)
        assert len(control.offered) == 2
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.board)
        assert len(control.applied) == 1


async def test_an_error_while_applying_stays_in_the_dialog() -> None:
    error = SlotError(what="Cannot stop chat", why="it is gone", do="Press esc")
    control = ScriptedControl(apply_errors=[error])
    async with panel(control) as (app, pilot):
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("enter")
        await until(pilot, lambda: "Cannot stop chat: it is gone. Press esc" in text(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.board)


async def test_an_offer_that_fails_is_a_toast() -> None:
    def fails(_: object) -> object:
        raise SlotError(what="No offer", why="core:9 is not here", do="Choose another")

    control = ScriptedControl(answer=fails)  # type: ignore[arg-type]
    async with panel(control) as (app, pilot):
        await pilot.press("x")
        await until(pilot, lambda: "No offer: core:9 is not here. Choose another" in toasts(app))


@SIZES
async def test_try_streams_and_measures(size: tuple[int, int]) -> None:
    control = ScriptedControl()
    async with panel(control, size) as (app, pilot):
        await pilot.press("t")
        await until(pilot, lambda: isinstance(app.screen, TryScreen))
        await pilot.press("enter")
        await until(pilot, lambda: "memory with the cores close to it." in text(app))
        await until(pilot, lambda: "TTFT 61 ms · ITL 24.1 ms mean · 41.5 tokens/s" in text(app))
        question(app).value = "And a PU?"
        await pilot.press("enter")
        await until(pilot, lambda: len(control.asked) == 2)
        assert control.asked[1] == ("chat", "And a PU?")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.board)


async def test_escape_aborts_an_answer() -> None:
    control = ScriptedControl(endless=True)
    async with panel(control) as (app, pilot):
        await pilot.press("t", "enter")
        await until(pilot, lambda: "3 tokens after" in text(app))
        await pilot.press("escape")
        await until(pilot, lambda: control.aborted == 1)


async def test_try_tells_what_failed() -> None:
    async with panel(ScriptedControl(ask_fails=True)) as (app, pilot):
        await pilot.press("t", "enter")
        await until(pilot, lambda: "No answer from chat: connection refused" in text(app))
        assert "Look at its log (l)" in text(app)


async def test_answers_cannot_command_the_terminal() -> None:
    control = ScriptedControl(words=("\x1b[2Jhi \x1b]0;x\x07", "[bold]there"))
    async with panel(control) as (app, pilot):
        await pilot.press("t", "enter")
        await until(pilot, lambda: "hi [bold]there" in text(app))
        assert "\x1b" not in text(app)


async def test_load_on_and_off() -> None:
    control = ScriptedControl()
    async with panel(control) as (app, pilot):
        await pilot.press("b")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert "1 stream to each instance" in text(app)
        await pilot.press("enter")
        await until(pilot, lambda: len(control.applied) == 1)
        load = LoadStatus(("chat",), 1, 77, 599.0)
        control.tell(snapshot(SMALL, two_instances(), load=load))
        await until(pilot, lambda: "load on: 1 stream, 10 min left" not in text(app))
        await until(pilot, lambda: "load on: 1 stream" in text(app))
        await pilot.press("b")
        await until(pilot, lambda: len(control.applied) == 2)
        assert control.offered == [StartLoad(("chat",)), StopLoad()]


async def test_log_at_full_height_and_back() -> None:
    control = ScriptedControl()
    async with panel(control) as (app, pilot):
        await pilot.press("l")
        await until(pilot, lambda: "instances" not in text(app))
        assert "ready on http://127.0.0.1:8001" in text(app)
        assert isinstance(app.focused, LogPane)
        control.log_text += "GET /health 200\n"
        await until(pilot, lambda: "GET /health 200" in text(app))
        await pilot.press("escape")
        await until(pilot, lambda: "instances" in text(app))


async def test_the_log_stands_still_while_one_reads_further_up() -> None:
    control = ScriptedControl(log_text="".join(f"line {at}\n" for at in range(300)) + "ready on\n")
    async with panel(control) as (app, pilot):
        await pilot.press("l")
        await until(pilot, lambda: "line 299" in text(app))
        await pilot.press("home")
        await until(pilot, lambda: "line 0 " in text(app))
        assert "paused: End follows again" in text(app)
        pane = app.board.query_one(LogPane)
        control.log_text += "new line\n"
        await until(pilot, lambda: pane.offset_read == len(control.log_text))
        assert "line 0 " in text(app)
        await pilot.press("end")
        await until(pilot, lambda: "new line" in text(app))


async def test_logs_cannot_command_the_terminal() -> None:
    control = ScriptedControl(log_text="\x1b[2J\x1b]0;evil\x07[red]ready on\x1b[0m \u202eabc\n")
    async with panel(control) as (app, _):
        assert "[red]ready on abc" in text(app)
        assert "\x1b" not in text(app)


@SIZES
async def test_help_and_events(size: tuple[int, int]) -> None:
    async with panel(ScriptedControl(), size) as (app, pilot):
        await pilot.press("question_mark")
        await until(pilot, lambda: "Start the selected instance again" in text(app))
        await pilot.press("pagedown", "pagedown")
        await until(pilot, lambda: "Close the panel; engines keep running" in text(app))
        await pilot.press("down", "escape")
        await until(pilot, lambda: app.screen is app.board)
        await pilot.press("e")
        await until(pilot, lambda: "chat is ready" in text(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.board)


async def test_quit_asks_and_says_what_keeps_running() -> None:
    async with panel(ScriptedControl()) as (app, pilot):
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, QuitScreen))
        assert "1 engine keeps running" in text(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.board)
        assert app.is_running
        await pilot.press("q", "q")
        await until(pilot, lambda: app._exit)


async def test_the_palette_has_every_action() -> None:
    async with panel(ScriptedControl()) as (app, pilot):
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert "Stop (x)" in titles
        await pilot.press("ctrl+p")
        await pilot.press(*"Events")
        await until(pilot, lambda: "What happened" in text(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, EventsScreen))


async def test_a_click_on_a_key_is_the_key() -> None:
    async with panel(ScriptedControl()) as (app, pilot):
        line = board_text(app).split("\n")[-1]
        await pilot.click(offset=(line.index("? Help") + 2, 23))
        await until(pilot, lambda: isinstance(app.screen, ReadingScreen))


async def test_readonly_changes_nothing() -> None:
    control = ScriptedControl()
    async with panel(control, readonly=True) as (app, pilot):
        assert "read-only" in text(app)
        await pilot.press("x", "m", "b")
        await until(pilot, lambda: len([1 for each in toasts(app) if "--readonly" in each]) == 3)
        assert control.offered == []


async def test_a_layout_is_offered_at_the_start() -> None:
    control = ScriptedControl()
    layout = ApplyLayout("two.toml", "schema = 1", "/layouts")
    async with panel(control, layout=layout) as (app, pilot):
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert "Apply the layout two.toml" in text(app)
        assert "new on numa:0" in text(app)
        await pilot.press("enter")
        await until(pilot, lambda: len(control.applied) == 1)


def server_moment() -> Snapshot:
    return snapshot(
        SERVER,
        (
            instance("chat", "numa:0", "0-7,32-39"),
            instance("coder", "core:16", "16,48", state=State.READY),
        ),
    )
