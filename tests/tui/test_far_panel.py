"""The panel of another machine: what its header says, and how it lives through a cut link."""

from collections.abc import Iterator

import pytest

from engine.core.errors import ServiceUnreachable
from tests.faraway import Faraway
from tests.processes import a_home, eventually
from tests.tui.pilots import panel, text, toasts, until
from tests.tui.scripted_control import ScriptedControl
from tests.tui.terminal import Terminal
from tui.follower import LONGEST_WAIT_S
from tui.present.farewell import farewell


async def test_the_host_stands_in_the_header() -> None:
    async with panel(ScriptedControl(), host="me@server") as (app, _):
        assert "slotdeck  me@server" in text(app)


async def test_attempts_come_later_each_time_and_say_when() -> None:
    control = ScriptedControl()
    now = [100.0]
    tries: list[int] = []

    async def reconnect() -> ScriptedControl:
        tries.append(1)
        raise ServiceUnreachable(what="far cannot be reached", why="no route", do="Wait")

    async with panel(
        control, host="far", reconnect=reconnect, clock=lambda: now[0], retry_s=0.3
    ) as (app, pilot):
        control.die()
        await until(pilot, lambda: len(tries) == 2)
        assert app.view.why_gone == "far cannot be reached: no route"
        assert app.view.retry_at is not None
        await until(pilot, lambda: app.view.retry_at == pytest.approx(101.2))
        await until(pilot, lambda: "link cut — again in 1 s" in text(app))
        assert [each for each in toasts(app) if each.startswith("No link to far: ")] == toasts(app)
        assert len(toasts(app)) == 1
    assert LONGEST_WAIT_S < 30


def test_the_last_words_name_the_host() -> None:
    assert "`slotdeck --host far` opens this again" in farewell(None, host="far")


@pytest.fixture
def far() -> Iterator[Faraway]:
    with a_home() as here, a_home() as there:
        yield Faraway(here, there)
        assert not here.processes()


def test_a_panel_lives_through_a_cut_link(far: Faraway) -> None:
    layout = far.layout({"name": "a", "slot": "core:0"})
    argv = far.argv("--host", "me@there", layout)[1:]
    with Terminal(*argv, size=(120, 40), **far.environment) as terminal:
        terminal.until("enter apply", 30)
        terminal.write(b"\r")
        terminal.until("● ready", 30)
        terminal.until("me@there")
        engines = far.there.engines()
        assert far.cut() >= 1
        terminal.until("No link to me@there")
        terminal.until("me@there answers")
        terminal.until("● live")
        assert far.there.engines() == engines
        links = far.links()
        assert 1 <= len(links) <= 3  # one that streams and what the log and the machine took
        terminal.write(b"qq")
        terminal.until(terminal.ended)
        assert terminal.status == 0
        after = terminal.raw.rpartition(b"\x1b[?1049l")[2].decode()
        assert "1 engine keeps running on me@there" in after
        assert "`slotdeck --host me@there down --all` stops them" in after
    eventually(lambda: not far.links())
    assert far.there.engines() == engines


def test_a_panel_whose_host_cannot_be_reached(far: Faraway) -> None:
    with Terminal(
        *far.argv("--host", "refused")[1:], size=(80, 24), **far.environment
    ) as terminal:
        terminal.until(terminal.ended)
        assert terminal.status == 1
        assert b"Permission denied" in terminal.raw


def test_a_wrong_host_after_the_layout(far: Faraway) -> None:
    argv = far.argv(far.layout({"name": "a"}), "--host=-oProxyCommand=x")[1:]
    with Terminal(*argv, size=(80, 24), **far.environment) as terminal:
        terminal.until(terminal.ended)
        assert terminal.status == 2
        assert b"cannot be a host" in terminal.raw
