"""A/B in the panel on a real service with fake engines: rolled back, and one arm kept."""

from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial

import pytest
from textual.pilot import Pilot

from engine.ab_process import AbProcess
from engine.core.status import State
from tests.cli.test_ab import QUICK, SHORT, needs_two_pus
from tests.processes import Home, a_home
from tests.tui.pilots import NARROW, text, until
from tui.app import SlotdeckApp
from tui.present.ab_state import Phase
from tui.screens.ab import AbScreen
from tui.screens.confirm import ConfirmScreen


@pytest.fixture
def home() -> Iterator[Home]:
    with a_home() as one:
        yield one


def short(home: Home, words: Sequence[str]) -> AbProcess:
    """With less load than a person would want; on a busy machine no pair may be good enough."""
    few = ("--pairs", "6", "--aa-pairs", "0", "--max-time", "15")
    return AbProcess.start(home.environment, (*words, *few, *SHORT))


@pytest.fixture
async def pilot(home: Home) -> AsyncIterator[Pilot[None]]:
    client = await home.connect()
    await home.up(client, {"name": "x", "slot": "core:0", "flags": QUICK})
    app = SlotdeckApp(client, compare=partial(short, home))
    async with app.run_test(size=NARROW) as one:
        await until(one, lambda: app.view.instance is not None and app.view.machine is not None)
        yield one


async def compared(pilot: Pilot[None]) -> None:
    """Up to the verdict, of where x is and the other core."""
    app = pilot.app
    await pilot.press("m", "right", "right", "enter")
    await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
    await pilot.press("a")
    await until(pilot, lambda: isinstance(app.screen, AbScreen))
    screen = app.screen
    assert isinstance(screen, AbScreen)
    await until(pilot, lambda: screen.state.phase is Phase.OFFERED)
    await pilot.press("enter")
    await until(pilot, lambda: screen.state.phase is Phase.DECIDING)
    await until(pilot, lambda: "1 keeps x on core:0" in text(app))


@needs_two_pus
async def test_all_is_rolled_back_and_then_one_is_kept(home: Home, pilot: Pilot[None]) -> None:
    app = pilot.app
    assert isinstance(app, SlotdeckApp)
    (was,) = app.view.instances
    await compared(pilot)
    await pilot.press("r")
    await until(pilot, lambda: "Rolled back: x runs again." in text(app))
    await pilot.press("escape")
    await until(pilot, lambda: app.view.instances[0].pid not in (None, was.pid))
    assert [(one.slot, one.port) for one in app.view.instances] == [("core:0", was.port)]
    await compared(pilot)
    await pilot.press("2")
    await until(pilot, lambda: "x on core:1 is kept, and runs." in text(app))
    await pilot.press("escape")
    await until(pilot, lambda: [one.slot for one in app.view.instances] == ["core:1"])
    (kept,) = app.view.instances
    assert (kept.state, kept.port) == (State.READY, was.port)
