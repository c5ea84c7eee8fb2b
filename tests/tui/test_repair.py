"""Repair from the panel: what differs, what would be done, and nothing done before Enter."""

import asyncio
from dataclasses import dataclass, field, replace

from engine.control import Difference, Verification, Verified
from engine.core.errors import ControlError
from tests.tui.pilots import panel, text, toasts, until
from tests.tui.scripted_control import ScriptedControl, snapshot, two_instances
from tui.screens.repair import RepairScreen

AWAY = Difference("affinity", "PU 0", "2 threads may run on PU 0-7", "`verify --repair`")
PORT = Difference("port", "port 8001 of its own", "nobody listens", "Look at its log")


def differing(**changes: object) -> ScriptedControl:
    base = ScriptedControl()
    chat = replace(two_instances()[0], verified=False)
    told = snapshot(base.its_machine, (chat, two_instances()[1]))
    return Repairing(its_snapshots=[told], **changes)  # type: ignore[arg-type]


@dataclass
class Repairing(ScriptedControl):
    """Finds `differences` until a repair brings back what one can."""

    differences: tuple[Difference, ...] = (AWAY,)
    repairs: list[bool] = field(default_factory=list)
    going: asyncio.Event = field(default_factory=asyncio.Event)
    refuses: bool = False

    async def verify(self, names: tuple[str, ...] = (), *, repair: bool = False) -> Verification:
        self.repairs.append(repair)
        words: tuple[str, ...] = ()
        if repair:
            await self.going.wait()
            if self.refuses:
                raise ControlError(what="Not repaired", why="it ended", do="Look at its log")
            self.differences = tuple(one for one in self.differences if one.what == "port")
            words = ("2 threads and 0 pages (0 MiB) moved in 0.1 s",)
        return Verification((Verified(names[0], not self.differences, self.differences, words),))


async def test_p_shows_what_differs_and_enter_brings_it_back() -> None:
    control = differing(differences=(AWAY, PORT))
    assert isinstance(control, Repairing)
    async with panel(control) as (app, pilot):
        assert "p Repair" in text(app)  # also where there is little room: it is wanted now
        await pilot.press("p")
        await until(pilot, lambda: "2 threads may run on PU 0-7" in text(app))
        assert "pins every thread to PU 0 again" in text(app)
        assert "does not change: port" in text(app)
        assert control.repairs == [False]
        await pilot.press("enter")
        await until(pilot, lambda: "repairing…" in text(app))
        await pilot.press("enter")  # once is enough
        control.going.set()
        await until(pilot, lambda: "moved in 0.1 s" in text(app))
        assert "nobody listens" in text(app)
        await pilot.press("enter")  # what is left, a repair cannot bring back
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.board)
        assert control.repairs == [False, True]


async def test_a_repair_that_fails_says_why_and_one_that_was_left_is_finished() -> None:
    control = differing(refuses=True)
    assert isinstance(control, Repairing)
    async with panel(control, (200, 60)) as (app, pilot):
        await pilot.press("p")
        await until(pilot, lambda: "enter repair" in text(app))
        await pilot.press("enter")
        control.going.set()
        await until(pilot, lambda: "Not repaired: it ended. Look at its log" in text(app))
        await pilot.press("escape", "p")
        await until(pilot, lambda: "enter repair" in text(app))
        control.refuses = False
        control.going.clear()
        await pilot.press("enter", "escape")
        await until(pilot, lambda: not isinstance(app.screen, RepairScreen))
        control.going.set()
        await until(pilot, lambda: not control.differences)


async def test_where_nothing_differs_the_key_says_so() -> None:
    async with panel(ScriptedControl()) as (app, pilot):
        assert "p Repair" not in text(app)
        await pilot.press("p")
        await until(pilot, lambda: toasts(app) == ["Repair: chat is as it was asked for"])
        await pilot.press("down")
        await until(pilot, lambda: app.view.selected == "coder")
        await pilot.press("p")
        await until(pilot, lambda: "coder is " in toasts(app)[-1])
    async with panel(differing(), readonly=True) as (app, pilot):
        await pilot.press("p")
        await until(pilot, lambda: "opened with --readonly" in toasts(app)[-1])
