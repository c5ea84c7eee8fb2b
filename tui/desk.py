"""What every screen beside the board is given."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.control import Change, Control
from engine.core.errors import ControlError
from tui.present.glyphs import Glyphs
from tui.present.happenings import Event
from tui.trails import Trails
from tui.view import View
from tui.widgets.palette import Palette

if TYPE_CHECKING:
    from engine.ab_process import Compare, Comparison
    from engine.core.checks import Check

    Checkup = Callable[[], Awaitable[tuple[Check, ...]]]


@dataclass(frozen=True, slots=True)
class Desk:
    """Functions where the answer changes while a screen is open."""

    view: Callable[[], View]
    control: Callable[[], Control]
    clock: Callable[[], float]
    act: Callable[[str], None]
    """Do an action of the board, or say why not."""
    propose: Callable[[Change], None]
    """Ask what a change would do, and show that to be confirmed."""
    tell: Callable[[ControlError], None]
    copy: Callable[[str, str], None]
    """A text to the clipboard, and what it is in words."""
    checkup: "Checkup"
    """Have the machine checked where the service is."""
    save: Callable[[str, Callable[[Path | None], None]], None]
    """Ask where to write what runs, from a path on; then it is told where that was."""
    select: Callable[[str], None]
    mark: Callable[[frozenset[str]], None]
    events: Callable[[], tuple[Event, ...]]
    compare: "Compare"
    """Start an A/B, as a process of its own."""
    part: Callable[[str], None]
    """What is to be said on the terminal, should the panel close now."""
    trails: Trails
    palette: Palette
    glyphs: Glyphs
    opened: Callable[[], str]
    """The layout file that the panel was opened with."""
    folder: Path | None
    """Where the user's own layouts are; None where that is not known."""


async def no_checkup() -> "tuple[Check, ...]":
    """Where nobody said how to reach the doctor."""
    raise ControlError(
        what="The machine cannot be checked from here",
        why="this panel was not told how to reach its doctor",
        do="Run `slotdeck doctor` on the machine itself",
    )


def no_comparison(_: Sequence[str]) -> "Comparison":
    """Where nobody said how to start one."""
    raise ControlError(
        what="No comparison can be started from here",
        why="this panel was not told how",
        do="Run `slotdeck ab`",
    )
