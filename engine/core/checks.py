"""The doctor's findings as values: `slotdeck.doctor/1` in JSON."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

SCHEMA = "slotdeck.doctor/1"
State = Literal["problem", "advice", "unknown", "ok"]
GRAVEST_FIRST: tuple[State, ...] = ("problem", "advice", "unknown", "ok")


class Evidence(Struct, frozen=True):
    """What was read where."""

    path: str
    value: str | int | float | bool | None = None


class Check(Struct, frozen=True):
    """One thing that was looked at."""

    id: str
    state: State
    found: str
    evidence: tuple[Evidence, ...] = ()
    why: str | None = None
    do: str | None = None
    undo: str | None = None
    needs: str | tuple[str, ...] | None = ()
    """What doing it takes, such as root or a restart of the machine."""


class Report(Struct, frozen=True):
    """The whole answer."""

    schema: str
    checks: tuple[Check, ...]


def gravest_first(checks: Iterable[Check]) -> list[Check]:
    """Those of one state stay in their order."""
    return sorted(checks, key=lambda one: GRAVEST_FIRST.index(one.state))


def counted(checks: Iterable[Check]) -> str:
    """`1 problem, 2 advice, 5 ok`."""
    count = Counter(one.state for one in checks)
    return ", ".join(
        f"{count[state]} {state}{'s' if state == 'problem' and count[state] > 1 else ''}"
        for state in GRAVEST_FIRST
        if count[state]
    )


def told(needs: str | tuple[str, ...] | None) -> str:
    """What it takes, in one piece."""
    return needs if isinstance(needs, str) else ", ".join(needs or ())
