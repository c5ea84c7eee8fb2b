"""End a comparison? Asked before anything of it is cut short."""

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType

from tui.present.ab_state import AbState
from tui.present.ab_text import leaving
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span
from tui.present.text import wrapped
from tui.screens.dialog import Dialog
from tui.widgets.palette import Palette


class AbLeaveScreen(Dialog[bool]):
    """True ends it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,y", "answer(True)", show=False),
        Binding("escape,n", "answer(False)", show=False),
    ]

    def __init__(self, state: AbState, palette: Palette, glyphs: Glyphs) -> None:
        super().__init__("End the comparison", palette, glyphs)
        self.state = state

    def body(self, width: int) -> Sequence[Line]:
        return [
            (Span(part, "text"),)
            for words in leaving(self.state)
            for part in wrapped(spelled(words, self.glyphs), width)
        ]

    def hints(self) -> Sequence[tuple[str, str]]:
        return (("enter", "end it"), ("esc", "go on"))

    def action_answer(self, answer: bool) -> None:  # noqa: FBT001  given by the binding
        self.dismiss(answer)
