"""A read-only panel: the header says so, each key says why, and the service holds it to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.client import connect
from engine.control import StopInstances
from engine.core.errors import ControlError
from engine.core.status import State
from engine.reach import Reach
from tests.processes import Home, a_home, eventually_async
from tests.tui.pilots import panel, text, toasts, until
from tests.tui.scripted_control import ScriptedControl
from tests.tui.terminal import Terminal
from tui.actions import ACTIONS


@pytest.fixture
def home() -> Iterator[Home]:
    with a_home() as one:
        yield one


async def test_every_key_that_changes_says_why_not() -> None:
    control = ScriptedControl()
    async with panel(control, readonly=True) as (app, pilot):
        assert "read-only" in text(app)
        changing = [one for one in ACTIONS if "--readonly" in (one.why_not(app.view) or "")]
        assert {one.id for one in changing} == {
            *("start", "repair", "restart", "stop", "forget", "load", "save"),
            *("move", "resize", "new", "undo", "redo", "ab"),
        }
        for one in changing:
            await pilot.press(one.key.partition(",")[0])
        await until(pilot, lambda: len(toasts(app)) == len(changing))
        assert all("opened with --readonly" in each for each in toasts(app))
        assert not control.offered
        assert not control.applied


async def test_the_service_refuses_what_the_panel_forgot(home: Home) -> None:
    await home.up(await home.connect(), {"name": "a"})
    looking = await connect(environment=home.environment, reach=Reach(readonly=True))
    assert (await looking.machine()).pus.usable
    offer = await looking.offer(StopInstances(("a",)))
    assert offer.stops == ("a",)
    for change in (
        looking.apply(offer),
        looking.verify(("a",), repair=True),
        looking.layout(),
        looking.stop_service(),
    ):
        with pytest.raises(ControlError, match="this connection is read-only"):
            await change
    (one,) = (await looking.snapshot()).instances
    assert one.state is State.READY


async def test_a_panel_that_meets_another_version_says_what_to_do(home: Home) -> None:
    old = "import engine.service.connection as one; one.PROTOCOL = 1"
    home.start_service(launcher=old)
    await eventually_async(home._accepts)
    with Terminal("-m", "engine.cli.main", size=(200, 24), **home.environment) as terminal:
        terminal.until(terminal.ended)
        assert terminal.status == 1
        assert b"(protocol 1), this side slotdeck" in terminal.raw
        assert b"`slotdeck service stop`; engines go on" in terminal.raw


def test_the_panel_as_a_process(home: Home, tmp_path: Path) -> None:
    layout = tmp_path / "a.toml"
    layout.write_text(home.layout({"name": "a"}).text)
    argv = ("-m", "engine.cli.main", "--readonly", str(layout))
    with Terminal(*argv, size=(100, 30), **home.environment) as terminal:
        terminal.until("read-only")
        terminal.until("The layout is not applied")
        terminal.write(b"qq")
        terminal.until(terminal.ended)
        assert terminal.status == 0
    assert not home.engines()
