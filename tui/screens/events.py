"""What happened: who says so and when; errors of the panel itself stay here as well."""

from typing import ClassVar

from textual.binding import BindingType
from textual.content import Content

from tui.desk import Desk
from tui.present.happenings import LEVEL_WORDS, LEVELS, chosen_events, event_lines
from tui.screens.lines_page import LinesPage
from tui.screens.page import page_bindings
from tui.widgets.lines import Lines


class EventsScreen(LinesPage):
    """Newest first."""

    PAGE = "events"
    DEGREES = LEVELS
    COPIED = "the events"
    BINDINGS: ClassVar[list[BindingType]] = page_bindings("events")

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, least=LEVELS[0])

    def show(self) -> None:
        lines = self.query_one("#lines", Lines)
        events = self.desk.events()
        chosen = chosen_events(events, words=self.words, least=self.least)
        lines.show(event_lines(chosen, lines.size.width, self.desk.glyphs))
        title = f"{LEVEL_WORDS[self.least]}: {len(chosen)} of {len(events)}"
        self.query_one("#scroll").border_title = Content(title)
