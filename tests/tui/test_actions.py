"""Why a key does not work now, in words."""

from dataclasses import replace

import pytest

from engine.core.status import LoadStatus, State
from tests.tui.machines import SMALL
from tests.tui.scripted_control import instance, snapshot
from tui.actions import ACTIONS, BY_ID
from tui.view import Connection, View


def view(state: State = State.READY, **changes: object) -> View:
    moment = snapshot(SMALL, (instance("a", "core:0", "0", state=state),))
    return replace(View(SMALL, moment, Connection.LIVE, selected="a"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("action", "state", "reason"),
    [
        ("start", State.READY, "a is already ready"),
        ("start", State.STARTING, "a is already starting"),
        ("start", State.STOPPED, None),
        ("start", State.FAILED, None),
        ("start", State.BACKOFF, None),
        ("stop", State.READY, None),
        ("stop", State.BACKOFF, None),
        ("stop", State.FAILED, None),
        ("stop", State.STOPPED, "a is already stopped"),
        ("stop", State.STOPPING, "a is already stopping"),
        ("forget", State.READY, "a is ready; stop it first"),
        ("forget", State.STOPPED, None),
        ("try", State.READY, None),
        ("try", State.STARTING, "a is starting, not ready"),
        ("move", State.READY, None),
        ("load", State.READY, None),
        ("load", State.FAILED, "no instance is ready to take requests"),
        ("log", State.FAILED, None),
        ("help", State.FAILED, None),
    ],
)
def test_by_state(action: str, state: State, reason: str | None) -> None:
    assert BY_ID[action].why_not(view(state)) == reason


@pytest.mark.parametrize("action", ["start", "stop", "forget", "move", "load"])
def test_changes_need_rights_and_a_service(action: str) -> None:
    assert "--readonly" in (BY_ID[action].why_not(view(readonly=True)) or "")
    gone = view(connection=Connection.GONE)
    assert "no connection" in (BY_ID[action].why_not(gone) or "")


def test_without_instances_or_machine() -> None:
    bare = View(SMALL, snapshot(SMALL, ()), Connection.LIVE)
    assert BY_ID["try"].why_not(bare) == "there is no instance yet"
    assert BY_ID["move"].why_not(view(machine=None)) == "the machine is not read yet"
    recorded = view(machine=replace(SMALL, live=False))
    assert "recorded machine" in (BY_ID["move"].why_not(recorded) or "")
    assert BY_ID["stop"].why_not(view(selected=None)) == "no instance is selected"
    assert BY_ID["quit"].why_not(View()) is None


def test_load_can_be_ended_when_nothing_is_ready() -> None:
    moment = snapshot(SMALL, (), load=LoadStatus(("a",), 1, 2, 3.0))
    assert BY_ID["load"].why_not(View(SMALL, moment, Connection.LIVE)) is None


def test_keys_and_ids_are_unlike() -> None:
    assert (
        len({each.key for each in ACTIONS}) == len({each.id for each in ACTIONS}) == len(ACTIONS)
    )
