"""What can be done here: each action with its key, its words, and why it may not work now."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from engine.core.cpuset import CpuSet
from engine.core.status import State
from tui.view import Connection, View

WhyNot = Callable[[View], str | None]
IDLE = (State.STOPPED, State.FAILED, State.BACKOFF)
ON_HAND = (State.STARTING, State.READY, State.BACKOFF, State.FAILED)
WORKS_IN = {
    "start": IDLE,
    "restart": ON_HAND,
    "stop": ON_HAND,
    "forget": (State.STOPPED, State.FAILED),
}
"""The states of an instance in which an action makes sense."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do; footer, help and palette all read it from here."""

    id: str
    key: str
    label: str
    does: str
    """One sentence for help and palette."""
    why_not: WhyNot
    """None when it works now, else the reason."""
    apart: bool = False
    """Destructive: stands apart from the harmless keys."""
    carrying: bool = False
    """Works also while something is carried, which all others put back."""


def always(_: View) -> str | None:
    """For actions that always work."""
    return None


def _changing(view: View) -> str | None:
    if view.readonly:
        return "this panel was opened with --readonly"
    if view.connection is not Connection.LIVE:
        return "there is no connection to the service now"
    return None


def _on_instance(view: View) -> str | None:
    if view.instance is None:
        return "no instance is selected" if view.instances else "there is no instance yet"
    return None


def targets(view: View, action: str) -> tuple[str, ...]:
    """Of the marked instances, or else the selected one, those that the action is for."""
    return tuple(each.name for each in view.chosen if each.state in WORKS_IN[action])


def _not_for(action: str, otherwise: str) -> WhyNot:
    def why_not(view: View) -> str | None:
        reason = _changing(view) or _on_instance(view)
        if reason or targets(view, action):
            return reason
        if len(view.chosen) > 1:
            return f"none of the {len(view.chosen)} marked instances can: see their states"
        each = view.chosen[0]
        return f"{each.name} is {otherwise.format(each.state)}"

    return why_not


def _not_move(view: View) -> str | None:
    reason = _changing(view) or _on_instance(view)
    if reason or view.instance is None:
        return reason
    if view.machine is None:
        return "the machine is not read yet"
    if not view.machine.live:
        return "this is a recorded machine; only the live one runs instances"
    return None


def _not_resize(view: View) -> str | None:
    reason = _not_move(view)
    if reason or view.instance is None:
        return reason
    if len(view.marked) > 1:
        return f"{len(view.marked)} instances are marked; one is resized at a time"
    if view.instance.gpus:
        return f"{view.instance.name} is on GPUs; its cores come from their NUMA node"
    if view.instance.state not in (State.STARTING, State.READY, State.BACKOFF):
        return f"{view.instance.name} is {view.instance.state} and holds no cores"
    return None


def _not_new(view: View) -> str | None:
    reason = _changing(view)
    if reason:
        return reason
    if view.machine is None:
        return "the machine is not read yet"
    if not view.machine.live:
        return "this is a recorded machine; only the live one runs instances"
    return None


def _not_undo(view: View) -> str | None:
    reason = _changing(view)
    if reason or (view.snapshot and view.snapshot.undo):
        return reason
    return "no placement was changed since the service was started"


def _not_redo(view: View) -> str | None:
    reason = _changing(view)
    if reason or (view.snapshot and view.snapshot.redo):
        return reason
    return "nothing was undone since the last change"


def _not_try(view: View) -> str | None:
    reason = _on_instance(view)
    if reason or view.instance is None:
        return reason
    if view.connection is not Connection.LIVE:
        return "there is no connection to the service now"
    if view.instance.state is not State.READY:
        return f"{view.instance.name} is {view.instance.state}, not ready"
    return None


def _not_repair(view: View) -> str | None:
    reason = _changing(view) or _on_instance(view)
    if reason or view.instance is None:
        return reason
    each = view.instance
    if each.state is not State.READY:
        return f"{each.name} is {each.state}; only what is ready is compared with what was asked"
    if each.verified is None:
        return f"{each.name} was not compared with what was asked yet"
    return f"{each.name} is as it was asked for" if each.verified else None


def _not_load(view: View) -> str | None:
    reason = _changing(view)
    if reason or (view.snapshot and view.snapshot.load):
        return reason
    if not any(each.state is State.READY for each in view.instances):
        return "no instance is ready to take requests"
    return None


def why_no_comparison(view: View) -> str | None:
    """Why no A/B can be run from here now, of whatever."""
    if reason := _changing(view):
        return reason
    if view.host:
        return f"an A/B is run on the machine itself: open the panel on {view.host}"
    if view.machine is None:
        return "the machine is not read yet"
    if not view.machine.live:
        return "this is a recorded machine; only the live one runs instances"
    return None


def _not_ab(view: View) -> str | None:
    reason = why_no_comparison(view) or _on_instance(view)
    each = view.instance
    if reason or each is None or view.machine is None:
        return reason
    if len(view.marked) > 1:
        return f"{len(view.marked)} instances are marked; one is compared at a time"
    if each.state is not State.READY:
        return f"{each.name} is {each.state}, not ready"
    if each.gpus:
        cards = sum(not gpu.integrated for gpu in view.machine.gpus)
        return None if cards > 1 else "there is one card; one or two needs a second one"
    # Asked at every refresh, on machines of a thousand cores: the second one is enough.
    pus = CpuSet.parse(each.pus).pus
    cores = (core for core in view.machine.cores if not core.pus.pus.isdisjoint(pus))
    if len(list(islice(cores, 2))) > 1:
        return None
    return (
        f"{each.name} has one core, and so no halves; in the plan of a move (m) a compares places"
    )


def _not_save(view: View) -> str | None:
    reason = _changing(view)
    if reason or view.instances:
        return reason
    return "there is no instance yet"


ACTIONS = (
    Action(
        "start",
        "s",
        "Start",
        "Start the selected instance again where it was",
        _not_for("start", "already {}"),
    ),
    Action("move", "m", "Move", "Pick the instance up; arrows choose a slot", _not_move),
    Action(
        "resize",
        "c",
        "Cores",
        "More or fewer cores: arrows move an end",
        _not_resize,
        carrying=True,
    ),
    Action("new", "n", "New", "A new instance: choose its model, draw its place", _not_new),
    Action("undo", "u", "Undo", "Take the newest change of placements back", _not_undo),
    Action("try", "t", "Try", "Ask the selected instance a question", _not_try),
    Action("load", "b", "Load", "Steady requests to all ready instances, on or off", _not_load),
    Action("ab", "a", "A/B", "Measure it: one card or two; one instance or two halves", _not_ab),
    Action("log", "l", "Log", "The log at full height, and back", _on_instance),
    Action(
        "instance", "d", "Details", "One instance: history, log, command, checks", _on_instance
    ),
    Action("instances", "i", "Instances", "All instances: sort, filter, mark several", always),
    Action("layouts", "o", "Layouts", "Layout files against what runs; apply one", always),
    Action("save", "w", "Save", "Save what runs as a layout, by name or path", _not_save),
    Action("events", "e", "Events", "What happened, newest first; errors stay there", always),
    Action("doctor", "D", "Doctor", "What is wrong with the machine, and what to do", always),
    Action(
        "repair",
        "p",
        "Repair",
        "Show what differs from what was asked; put threads and pages back",
        _not_repair,
    ),
    Action("mouse", "M", "Mouse", "Give the mouse to the terminal for its own selection", always),
    Action("redo", "U,ctrl+r", "Redo", "Do again what was undone", _not_redo),
    Action(
        "mark",
        "space",
        "Mark",
        "Mark it: moves, starts and stops are for all marked",
        _on_instance,
    ),
    Action(
        "nearer",
        "plus,equals_sign",
        "Nearer",
        "The map: less of it, in more detail",
        always,
        carrying=True,
    ),
    Action("farther", "minus", "Farther", "The map: more of it again", always, carrying=True),
    Action("help", "question_mark", "Help", "All keys, marks and colours", always),
    Action("quit", "q", "Quit", "Close the panel; engines keep running", always),
    Action(
        "restart",
        "R",
        "Restart",
        "Stop the selected instance and start it where it is",
        _not_for("restart", "{}; s starts it"),
        apart=True,
    ),
    Action(
        "stop",
        "x",
        "Stop",
        "Stop the selected instance",
        _not_for("stop", "already {}"),
        apart=True,
    ),
    Action(
        "forget",
        "X",
        "Forget",
        "Drop a stopped instance from the list",
        _not_for("forget", "{}; stop it first"),
        apart=True,
    ),
)
BY_ID = {action.id: action for action in ACTIONS}
