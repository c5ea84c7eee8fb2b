"""Carrying an instance to a slot, by mouse or keys: a pure state machine that only ever asks."""

from dataclasses import dataclass, replace

SILENT_S = 30.0
"""A mouse that says nothing for so long has lost its button-up."""


@dataclass(frozen=True, slots=True)
class Grip:
    """The button is down on an instance and has not moved yet: still a click."""

    name: str
    x: int
    y: int
    at: float


@dataclass(frozen=True, slots=True)
class Carry:
    """An instance on its way."""

    name: str
    slot: str | None
    """The slot under it, None outside the map."""
    x: int
    y: int
    by_mouse: bool
    at: float


Drag = Grip | Carry | None


@dataclass(frozen=True, slots=True)
class Pressed:
    """Button down; `name` is the instance under the pointer."""

    x: int
    y: int
    name: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Moved:
    x: int
    y: int
    slot: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Released:
    x: int
    y: int
    slot: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Picked:
    """The move key, on an instance."""

    name: str
    slot: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Aimed:
    """The map's cursor went to another slot."""

    slot: str | None


@dataclass(frozen=True, slots=True)
class Dropped:
    """Enter, while carrying by keys."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Escape, another screen, a lost capture."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    at: float


Event = Pressed | Moved | Released | Picked | Aimed | Dropped | Cancelled | Tick


@dataclass(frozen=True, slots=True)
class AskToMove:
    """Make an offer for this move; nothing moves before it is confirmed."""

    name: str
    slot: str


@dataclass(frozen=True, slots=True)
class LetGo:
    """The carrying ended and nothing is asked."""

    why: str


@dataclass(frozen=True, slots=True)
class Step:
    """What the drag becomes, what to do, and whether widgets must not see the event."""

    drag: Drag
    effect: AskToMove | LetGo | None = None
    swallow: bool = False


def step(drag: Drag, event: Event) -> Step:
    """One event further."""
    match drag, event:
        case _, Picked():
            return Step(Carry(event.name, event.slot, 0, 0, by_mouse=False, at=event.at))
        case Carry(by_mouse=True), Pressed():
            return Step(None, LetGo("the button's release was lost"), swallow=True)
        case ((None | Grip()), Pressed()):
            grip = Grip(event.name, event.x, event.y, event.at) if event.name else None
            return Step(grip)
        case Grip(), Moved() if (event.x, event.y) != (drag.x, drag.y):
            carry = Carry(drag.name, event.slot, event.x, event.y, by_mouse=True, at=event.at)
            return Step(carry, swallow=True)
        case Grip(), Released() if (event.x, event.y) != (drag.x, drag.y) and event.slot:
            # Terminals without motion reports send only the two ends of a drag.
            return Step(None, AskToMove(drag.name, event.slot), swallow=True)
        case Grip(), (Released() | Cancelled()):
            return Step(None)
        case Carry(by_mouse=True), Moved():
            moved = replace(drag, slot=event.slot, x=event.x, y=event.y, at=event.at)
            return Step(moved, swallow=True)
        case Carry(by_mouse=True), Released():
            if event.slot is None:
                return Step(None, LetGo("that is no slot of the machine"), swallow=True)
            return Step(None, AskToMove(drag.name, event.slot), swallow=True)
        case Carry(by_mouse=True), Tick() if event.at - drag.at > SILENT_S:
            return Step(None, LetGo("the mouse went silent"))
        case Carry(by_mouse=False), Aimed():
            return Step(replace(drag, slot=event.slot))
        case Carry(), Dropped():
            if drag.slot is None:
                return Step(drag)
            return Step(None, AskToMove(drag.name, drag.slot))
        case Carry(), Cancelled():
            return Step(None, LetGo(event.why), swallow=True)
        case _:
            return Step(drag)
