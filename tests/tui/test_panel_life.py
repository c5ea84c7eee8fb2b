"""What the panel lives through: a lost service, bugs, other machines, any size of terminal."""

from dataclasses import replace

import pytest

from engine.core.status import Happening
from tests.tui.machines import HUGE, SERVER, SMALL, made, odd
from tests.tui.pilots import panel, text, toasts, until
from tests.tui.scripted_control import (
    AT,
    ScriptedControl,
    instance,
    snapshot,
    two_instances,
)
from tui.app import SlotdeckApp
from tui.view import Connection


async def test_happenings_are_told_once() -> None:
    control = ScriptedControl()
    async with panel(control) as (app, pilot):
        assert toasts(app) == []
        first = control.its_snapshots[-1]
        crash = Happening(AT, "error", "chat crashed: out of memory")
        control.tell(replace(first, happenings=(*first.happenings, crash)))
        await until(pilot, lambda: len(toasts(app)) == 1)
        control.tell(replace(first, happenings=(*first.happenings, crash), sampled_at="later"))
        await until(pilot, lambda: app.view.snapshot is control.its_snapshots[-1])
        assert len(toasts(app)) == 1


async def test_what_others_ask_for_is_told_and_what_one_asks_for_oneself_only_listed() -> None:
    control = ScriptedControl()
    async with panel(control, who="panel 7") as (app, pilot):
        first = control.its_snapshots[-1]
        asked = [Happening(AT, "information", f"panel {who}: stop chat") for who in ("7", "77")]
        control.tell(replace(first, happenings=(*first.happenings, *asked)))
        await until(pilot, lambda: toasts(app) == [": panel 77: stop chat"])
        await pilot.press("e")
        await until(pilot, lambda: "panel 7: stop chat" in text(app))


async def test_a_lost_service_is_a_state_and_comes_back() -> None:
    control = ScriptedControl()
    other = ScriptedControl(its_snapshots=[snapshot(SMALL, (instance("new", "core:0", "0"),))])

    async def reconnect() -> ScriptedControl:
        return await back(other)

    alive = [False]

    async def back(it: ScriptedControl) -> ScriptedControl:
        if not alive[0]:
            raise OSError("no socket")
        return it

    async with panel(control, reconnect=reconnect) as (app, pilot):
        control.die()
        await until(pilot, lambda: "service gone — reconnecting" in text(app))
        await pilot.press("x")
        await until(pilot, lambda: any("no connection" in each for each in toasts(app)))
        alive[0] = True
        await until(pilot, lambda: app.view.connection is Connection.LIVE)
        await until(pilot, lambda: "new" in text(app))


async def test_a_service_that_is_gone_from_the_start() -> None:
    control = ScriptedControl(gone=True)
    async with panel(control) as (app, pilot):
        await until(pilot, lambda: control.connections > 2)
        assert app.is_running
        control.revive()
        await until(pilot, lambda: "● live" in text(app))
        assert len(toasts(app)) == 1


async def test_a_bug_in_the_background_is_shown_once() -> None:
    control = ScriptedControl()

    def broken(_: object) -> object:
        raise ZeroDivisionError("a bug")

    control.answer = broken  # type: ignore[assignment]
    async with panel(control) as (app, pilot):
        await pilot.press("x")
        await until(pilot, lambda: any("ZeroDivisionError: a bug" in each for each in toasts(app)))
        await pilot.press("x", "x")
        await pilot.pause()
        assert len([each for each in toasts(app) if "a bug" in each]) == 1


async def test_an_old_snapshot_says_so() -> None:
    now = [100.0]
    async with panel(ScriptedControl(), clock=lambda: now[0]) as (app, pilot):
        now[0] = 109.0
        await until(pilot, lambda: "live, but 9 s old" in text(app))


@pytest.mark.parametrize("machine", ["small", "server", "huge", "odd", "none"])
async def test_no_size_and_no_machine_breaks_it(machine: str) -> None:
    bare = replace(SMALL, packages=(), numa_nodes=(), cores=())
    machines = {"small": SMALL, "server": SERVER, "huge": HUGE, "odd": odd(), "none": bare}
    control = ScriptedControl(its_machine=machines[machine])
    app = SlotdeckApp(control)
    async with app.run_test(size=(1, 1)) as pilot:
        await until(pilot, lambda: app.view.snapshot is not None)
        for size in ((2, 2), (10, 3), (40, 10), (400, 100), (1, 1), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.press("m", "down", "escape")
        await pilot.press("l", "question_mark", "escape", "escape")
        await until(pilot, lambda: "load off" in text(app))


async def test_another_machine_is_read_and_drawn() -> None:
    control = ScriptedControl()
    async with panel(control) as (app, pilot):
        control.its_machine = made(1, 2, 4)
        control.tell(snapshot(control.its_machine, two_instances()))
        await until(pilot, lambda: "2 NUMA nodes" in text(app))
        assert "NUMA 1" in text(app)


async def test_many_instances_scroll_with_the_selection() -> None:
    many = tuple(instance(f"i{at}", "core:0", "0") for at in range(40))
    control = ScriptedControl(its_snapshots=[snapshot(SMALL, many)])
    async with panel(control) as (app, pilot):
        await pilot.press("end")
        await until(pilot, lambda: "i39" in text(app))
        await pilot.press("home")
        await until(pilot, lambda: "i0 " in text(app))


@pytest.mark.parametrize("keys", ["", "d", "o", "i", "e", "question_mark", "x"])
async def test_ascii_panel_is_ascii(keys: str) -> None:
    async with panel(ScriptedControl(), ascii_only=True) as (app, pilot):
        assert "* ready" in text(app)
        if keys:
            await pilot.press(keys)
            await until(pilot, lambda: app.screen is not app.board)
            await pilot.pause()
        await until(pilot, lambda: text(app).isascii())
