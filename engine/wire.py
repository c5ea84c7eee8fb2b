"""The lines that a client and the service exchange: JSON lines, one call after the other.

Both sides begin with `Hello`, the service first. The client then sends a `Request`, and the
service answers with values, one a line: one value for most calls, pieces up to an `AnswerEnd` for
a prompt, and snapshots until somebody leaves. A `Failure` instead of a value ends the call. The
connection stays for the next one.
"""

from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from engine.core.codec import decode, to_builtins
from engine.core.errors import ControlError

PROTOCOL = 2
"""Raised whenever an older side would misunderstand."""
LIMIT_BYTES = 16 << 20
"""No line is longer."""
HOME = "~"
"""As the base of a layout that was sent from another machine: the home of the service's user."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hello:
    """Who speaks. Later versions only add fields, so that any two can tell their versions."""

    protocol: int
    version: str
    name: str = "slotdeck"
    """Who asks, as the list of what happened tells it: "panel 4711 on laptop"."""
    readonly: bool = False
    """A client's promise to change nothing, which the service holds it to."""
    home: str = ""
    """Of the service's user."""

    def __str__(self) -> str:
        return f"slotdeck {self.version} (protocol {self.protocol})"


@dataclass(frozen=True, slots=True)
class Request:
    """One call."""

    call: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Done:
    """The call was carried out and has nothing to tell."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A ControlError on its way: the class's name and its three sentences."""

    error: str
    what: str
    why: str
    do: str


def pack(value: object) -> bytes:
    """One line. The value's class stands beside it, so that both ends can read it strictly."""
    line = {"kind": type(value).__name__, "value": to_builtins(value)}
    return msgspec.json.encode(line) + b"\n"


@dataclass(frozen=True, slots=True)
class Line:
    """A line before its value is read."""

    kind: str
    value: msgspec.Raw


def unpack(line: bytes, kind: type[T]) -> T:
    """Read a line of that kind; raises msgspec.DecodeError for any other.

    A `Failure` is raised as the ControlError that it was on the other side.
    """
    read = msgspec.json.decode(line, type=Line)
    if read.kind == Failure.__name__ and kind is not Failure:
        failure = decode(bytes(read.value), Failure)
        raise _raised(failure)
    if read.kind != kind.__name__:
        raise msgspec.ValidationError(f"a {read.kind} instead of a {kind.__name__}")
    return decode(bytes(read.value), kind)


def _raised(failure: Failure) -> ControlError:
    kinds: dict[str, type[ControlError]] = {
        kind.__name__: kind for kind in _all_below(ControlError)
    }
    kind = kinds.get(failure.error, ControlError)
    return kind(what=failure.what, why=failure.why, do=failure.do)


def _all_below(kind: type[ControlError]) -> list[type[ControlError]]:
    return [one for below in kind.__subclasses__() for one in (below, *_all_below(below))]
