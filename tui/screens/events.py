"""What happened: who says so and when; errors of the panel itself stay here as well."""

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget

from tui.desk import Desk
from tui.messages import FilterChanged
from tui.present.happenings import LEVEL_WORDS, LEVELS, chosen_events, event_lines
from tui.screens.page import Page, page_bindings
from tui.widgets.filter_line import FilterLine
from tui.widgets.lines import Lines


class EventsScreen(Page):
    """Newest first."""

    PAGE = "events"
    AUTO_FOCUS = "#scroll"
    BINDINGS: ClassVar[list[BindingType]] = [
        *page_bindings("events"),
        Binding("k", "scroll(-1)", show=False),
        Binding("j", "scroll(1)", show=False),
    ]

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.least = LEVELS[0]
        self.words = ""

    def body(self) -> Iterable[Widget]:
        with VerticalScroll(id="scroll", classes="frame") as scroll:
            scroll.can_focus = True
            yield Lines(self.desk.palette, id="lines")
        yield FilterLine(self.desk.palette, self.desk.glyphs, id="filter")

    def show(self) -> None:
        lines = self.query_one("#lines", Lines)
        events = self.desk.events()
        chosen = chosen_events(events, words=self.words, least=self.least)
        lines.show(event_lines(chosen, lines.size.width, self.desk.glyphs))
        title = f"{LEVEL_WORDS[self.least]}: {len(chosen)} of {len(events)}"
        self.query_one("#scroll").border_title = Content(title)

    def on_filter_changed(self, message: FilterChanged) -> None:
        self.words = message.words
        self.draw()

    def do_severity(self) -> None:
        self.least = LEVELS[(LEVELS.index(self.least) + 1) % len(LEVELS)]
        self.draw()

    def do_copy(self) -> None:
        self.copy_lines(self.query_one("#lines", Lines).lines, "the events")

    def action_scroll(self, by: int) -> None:
        self.query_one("#scroll", VerticalScroll).scroll_relative(y=by, animate=False)
