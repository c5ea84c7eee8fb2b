"""What a comparison tells while it runs, a line of JSON each: for the panel, or any program."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from engine.core.codec import convert, encode, to_builtins

START: Final = "start"
STOP: Final = "stop"
KEEP: Final = "keep"
BACK: Final = "back"
"""What it is told: to begin; to end now and put back what ran; at the end `keep ARM` or `back`."""


@dataclass(frozen=True, slots=True)
class ArmPlanned:
    """One arm and where its instances would be."""

    name: str
    places: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """What runs now and would not run any more if this arm were kept."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What would be done; nothing has been yet."""

    arms: tuple[ArmPlanned, ...]
    comparisons: tuple[tuple[str, str], ...]
    """Names of A and B, in the order of their comparisons."""
    stops: tuple[str, ...]
    losses: tuple[str, ...]
    """What stopping costs, in words: requests in flight."""
    notes: tuple[str, ...]
    starts: int
    """Of arms, at most."""
    pairs: int
    aa_pairs: int
    streams: int
    most_s: float | None
    """For measuring, of all comparisons together."""
    start_most_s: float
    """For one start, before it is given up."""
    file: str = ""
    """Where what runs now is written down, to be started again; empty where nothing runs."""


@dataclass(frozen=True, slots=True)
class Said:
    """A step, in words."""

    line: str


@dataclass(frozen=True, slots=True)
class Measuring:
    """A block runs."""

    comparison: int
    """From 1."""
    label: str
    arm: str
    """a or b."""
    phase: str
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """One metric so far, B against A: a plain interval that narrows, and no verdict."""

    name: str
    unit: str
    better: str
    n: int
    a: float
    b: float
    ratio: float
    ci95: tuple[float, float] | None
    """None of fewer than two pairs."""
    noise_floor: float | None
    """What A against itself came to."""


@dataclass(frozen=True, slots=True)
class Paired:
    """A pair is measured: of A against itself, or of A and B."""

    comparison: int
    is_aa: bool
    number: int
    of: int
    order: str
    valid: int
    void: str | None
    """Why this one does not count."""
    ratios: tuple[Ratio, ...]
    elapsed_s: float
    left_s: float | None
    """At most, of this comparison."""


@dataclass(frozen=True, slots=True)
class Row:
    """One verdict; the fields are those of `slotdeck.ab/1`."""

    name: str
    unit: str
    better: str
    a: float | None
    b: float | None
    ratio: float | None
    ci95: tuple[float, float] | None
    verdict: str
    smallest_detectable: float | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """One comparison is over."""

    comparison: int
    sentence: str
    metrics: tuple[Row, ...]
    pairs: int
    void: int
    noise_floor: float | None
    stop: str | None
    saved: str
    """The file; empty where none is written."""


@dataclass(frozen=True, slots=True)
class Deciding:
    """All is measured; waits to be told what to keep, and puts back what ran if nothing comes."""

    winner: str | None
    why: str
    """For the winner, or for there being none."""
    within_s: float


@dataclass(frozen=True, slots=True)
class PuttingBack:
    """What ran before, or the arm that is kept, is being started."""

    kept: str | None
    names: tuple[str, ...]
    file: str
    """Starts again what ran before, should nobody else do; empty where nothing ran."""


@dataclass(frozen=True, slots=True)
class Ended:
    """It is over and everything stands."""

    kept: str | None
    interrupted: bool
    different: tuple[str, ...] = ()
    """What is not exactly as it was, in words."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It is over because of this; an `Ended` before it says that what ran is back."""

    what: str
    why: str
    do: str


Told = Planned | Said | Measuring | Paired | Judged | Deciding | PuttingBack | Ended | Failed
_KINDS: Final[Mapping[str, type[Told]]] = {
    kind.__name__: kind
    for kind in (
        *(Planned, Said, Measuring, Paired, Judged),
        *(Deciding, PuttingBack, Ended, Failed),
    )
}


@dataclass(frozen=True, slots=True)
class _Line:
    event: str
    told: Any = None


def line_of(told: Told) -> bytes:
    """One line of JSON without its newline."""
    return encode(_Line(type(told).__name__, to_builtins(told)))


def told_in(line: bytes) -> Told | None:
    """What a line says; None for a line that is none of ours, such as a later version's."""
    try:
        read = convert(msgspec.json.decode(line), _Line)
        kind = _KINDS.get(read.event)
        return None if kind is None else convert(read.told, kind)
    except msgspec.MsgspecError:
        return None
