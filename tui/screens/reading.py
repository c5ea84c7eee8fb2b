"""Dialogs that are only read: help and the list of events."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType

from tui.present.glyphs import Glyphs
from tui.present.ink import Line
from tui.screens.dialog import Dialog
from tui.widgets.palette import Palette


class ReadingScreen(Dialog[None]):
    """Lines made for the width there is; several keys close it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,question_mark,e", "close", show=False)
    ]

    def __init__(
        self, title: str, lines: Callable[[int], Sequence[Line]], palette: Palette, glyphs: Glyphs
    ) -> None:
        super().__init__(title, palette, glyphs)
        self.lines = lines

    def body(self, width: int) -> Sequence[Line]:
        return self.lines(width)

    def hints(self) -> Sequence[tuple[str, str]]:
        return (("esc", "close"), ("up/down", "scroll"))

    def action_close(self) -> None:
        self.dismiss(None)
