"""A page of lines to read: filtered by words and by how grave they are, scrolled, copied."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widget import Widget

from tui.desk import Desk
from tui.messages import FilterChanged
from tui.screens.page import Page
from tui.widgets.filter_line import FilterLine
from tui.widgets.lines import Lines


class LinesPage(Page):
    """`show` fills `#lines`, by `words` and `least`."""

    AUTO_FOCUS = "#scroll"
    DEGREES: ClassVar[Sequence[str]]
    """How grave a line can be, in the order in which `f` goes through them."""
    COPIED: ClassVar[str]
    """What is told to have been copied."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("k", "scroll(-1)", show=False),
        Binding("j", "scroll(1)", show=False),
    ]

    def __init__(self, desk: Desk, *, least: str) -> None:
        super().__init__(desk)
        self.least = least
        self.words = ""

    def body(self) -> Iterable[Widget]:
        with VerticalScroll(id="scroll", classes="frame") as scroll:
            scroll.can_focus = True
            yield Lines(self.desk.palette, id="lines")
        yield FilterLine(self.desk.palette, self.desk.glyphs, id="filter")

    def on_filter_changed(self, message: FilterChanged) -> None:
        self.words = message.words
        self.draw()

    # Actions

    def do_severity(self) -> None:
        self.least = self.DEGREES[(self.DEGREES.index(self.least) + 1) % len(self.DEGREES)]
        self.draw()

    def do_copy(self) -> None:
        self.copy_lines(self.query_one("#lines", Lines).lines, self.COPIED)

    def action_scroll(self, by: int) -> None:
        self.query_one("#scroll", VerticalScroll).scroll_relative(y=by, animate=False)
