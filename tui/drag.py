"""Carrying instances to a slot, by mouse or keys: a pure state machine that only ever asks."""

from dataclasses import dataclass, replace
from enum import StrEnum

SILENT_S = 30.0
"""A mouse that says nothing for so long has lost its button-up."""


class Kind(StrEnum):
    """What is done to what is carried."""

    MOVE = "move"
    RESIZE = "resize"
    """One end stays, the other goes where the pointer is."""
    DRAW = "draw"
    """A new instance: from one core to another, or on a whole place."""


@dataclass(frozen=True, slots=True)
class Cargo:
    """What is carried."""

    kind: Kind
    names: tuple[str, ...]
    """Instances, or the one that is to be new."""
    anchor: int | None = None
    """The core that stays while one resizes or draws."""
    grown: int = 0
    """So many cores more than it has now, or fewer."""


def move(*names: str) -> Cargo:
    """Instances on their way to another place."""
    return Cargo(Kind.MOVE, names)


@dataclass(frozen=True, slots=True)
class Grip:
    """The button is down on an instance and has not moved yet: still a click."""

    cargo: Cargo
    x: int
    y: int
    at: float


@dataclass(frozen=True, slots=True)
class Carry:
    """Something on its way."""

    cargo: Cargo
    slot: str | None
    """The slot under it, None outside the map."""
    x: int
    y: int
    by_mouse: bool
    at: float


Drag = Grip | Carry | None


@dataclass(frozen=True, slots=True)
class Pressed:
    """Button down; `cargo` is what the pointer would take, `slot` what it is on."""

    x: int
    y: int
    cargo: Cargo | None
    slot: str | None
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
    """A key took it, or the mouse pulled it out of the palette for new ones."""

    cargo: Cargo
    slot: str | None
    at: float
    x: int = 0
    y: int = 0
    by_mouse: bool = False


@dataclass(frozen=True, slots=True)
class Aimed:
    """The map's cursor went to another slot."""

    slot: str | None


@dataclass(frozen=True, slots=True)
class Grown:
    """More or fewer cores, by keys."""

    by: int


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


Event = Pressed | Moved | Released | Picked | Aimed | Grown | Dropped | Cancelled | Tick


@dataclass(frozen=True, slots=True)
class Ask:
    """Make an offer for this; nothing changes before it is confirmed."""

    cargo: Cargo
    slot: str


@dataclass(frozen=True, slots=True)
class LetGo:
    """The carrying ended and nothing is asked."""

    why: str


@dataclass(frozen=True, slots=True)
class Step:
    """What the drag becomes, what to do, and whether widgets must not see the event."""

    drag: Drag
    effect: Ask | LetGo | None = None
    swallow: bool = False


def core_of(slot: str | None) -> int | None:
    """The first core of a slot of cores."""
    kind, _, rest = (slot or "").partition(":")
    first = rest.partition(",")[0].partition("-")[0]
    return int(first) if kind == "core" and first.isdigit() else None


def step(drag: Drag, event: Event) -> Step:
    """One event further."""
    match drag, event:
        case _, Picked():
            carry = Carry(event.cargo, event.slot, event.x, event.y, event.by_mouse, event.at)
            return Step(carry)
        case Carry(by_mouse=True), Pressed():
            return Step(None, LetGo("the button's release was lost"), swallow=True)
        case Carry(cargo=Cargo(kind=Kind.DRAW)), Pressed() if event.slot:
            cargo = replace(drag.cargo, anchor=core_of(event.slot))
            drawn = Carry(cargo, event.slot, event.x, event.y, by_mouse=True, at=event.at)
            return Step(drawn, swallow=True)
        case ((None | Grip()), Pressed()):
            grip = Grip(event.cargo, event.x, event.y, event.at) if event.cargo else None
            return Step(grip)
        case Grip(), Moved() if (event.x, event.y) != (drag.x, drag.y):
            carry = Carry(drag.cargo, event.slot, event.x, event.y, by_mouse=True, at=event.at)
            return Step(carry, swallow=True)
        case Grip(), Released() if (event.x, event.y) != (drag.x, drag.y) and event.slot:
            # Terminals without motion reports send only the two ends of a drag.
            return Step(None, Ask(drag.cargo, event.slot), swallow=True)
        case Grip(), (Released() | Cancelled()):
            return Step(None)
        case Carry(by_mouse=True), Moved():
            moved = replace(drag, slot=event.slot, x=event.x, y=event.y, at=event.at)
            return Step(moved, swallow=True)
        case Carry(by_mouse=True), Released():
            if event.slot is None:
                return Step(None, LetGo("that is no slot of the machine"), swallow=True)
            return Step(None, Ask(drag.cargo, event.slot), swallow=True)
        case Carry(by_mouse=True), Tick() if event.at - drag.at > SILENT_S:
            return Step(None, LetGo("the mouse went silent"))
        case Carry(by_mouse=False), Aimed():
            return Step(replace(drag, slot=event.slot))
        case Carry(), Grown():
            grown = replace(drag.cargo, grown=drag.cargo.grown + event.by)
            return Step(replace(drag, cargo=grown))
        case Carry(), Dropped():
            if drag.slot is None:
                return Step(drag)
            core = core_of(drag.slot)
            if drag.cargo.kind is Kind.DRAW and drag.cargo.anchor is None and core is not None:
                return Step(replace(drag, cargo=replace(drag.cargo, anchor=core)))
            return Step(None, Ask(drag.cargo, drag.slot))
        case Carry(), Cancelled():
            return Step(None, LetGo(event.why), swallow=True)
        case _:
            return Step(drag)
