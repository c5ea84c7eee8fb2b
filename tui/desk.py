"""What every screen beside the board is given."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.control import Change, Control
from engine.core.errors import ControlError
from tui.present.glyphs import Glyphs
from tui.present.happenings import Event
from tui.trails import Trails
from tui.view import View
from tui.widgets.palette import Palette


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
    save: Callable[[str, Callable[[Path | None], None]], None]
    """Ask where to write what runs, from a path on; then it is told where that was."""
    select: Callable[[str], None]
    mark: Callable[[frozenset[str]], None]
    events: Callable[[], tuple[Event, ...]]
    trails: Trails
    palette: Palette
    glyphs: Glyphs
    folder: Path | None
    """Where the user's own layouts are; None where that is not known."""
