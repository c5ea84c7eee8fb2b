"""The panel's end by a fault of its own: one plain message, and the details in a private file."""

import traceback
from collections.abc import Mapping
from pathlib import Path

from textual.app import App

from engine import __version__
from engine.core.errors import ControlError
from engine.crash_file import keep

ROOT = Path(__file__).resolve().parents[1]


class KeepsFault(App[None]):
    """Prints nothing of a fault: Textual would print the values of all local variables."""

    @property
    def fault(self) -> Exception | None:
        """What has ended it."""
        return self._exception

    def _fatal_error(self) -> None:
        self._close_messages_no_wait()

    def _print_error_renderables(self) -> None:
        self._exit_renderables.clear()


def fault_words(error: BaseException, environment: Mapping[str, str]) -> str:
    """One line for the restored terminal; the details are kept meanwhile.

    The error's own words go into the file alone: they may quote what only the user may see.
    """
    words = f"the panel has ended by a fault of its own, {type(error).__name__}{_place(error)}. "
    words += "Engines and the service go on running; `slotdeck` opens it again. "
    try:
        kept = keep(error, f"slotdeck {__version__}, the panel", environment)
    except ControlError as problem:
        return f"{words}Its details are lost: {problem}"
    return f"{words}Its details, for a report, are in {kept}"


def _place(error: BaseException) -> str:
    """The innermost line of our own that it passed through."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and "site-packages" not in path.relative_to(ROOT).parts:
            return f" in {path.relative_to(ROOT)} line {frame.lineno}"
    return ""
