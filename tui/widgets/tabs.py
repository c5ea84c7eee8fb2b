"""Tabs to choose by number, by Tab or by a click."""

from textual import events
from textual.message import Message

from tui.present.tabs import tabs_line
from tui.widgets.lines import Lines
from tui.widgets.palette import Palette


class Tabs(Lines):
    """One line; tells which one was chosen."""

    class Chosen(Message):
        """Another tab."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def __init__(self, palette: Palette, names: tuple[str, ...], *, id: str | None = None) -> None:  # noqa: A002  Textual's name
        super().__init__(palette, id=id)
        self.names = names
        self.chosen = names[0]
        self._places: tuple[tuple[int, int, str], ...] = ()
        self._draw()

    def choose(self, name: str) -> None:
        """Show this one."""
        if name in self.names and name != self.chosen:
            self.chosen = name
            self._draw()
            self.post_message(self.Chosen(name))

    def step(self, by: int) -> None:
        """The next one, or the one before."""
        at = self.names.index(self.chosen)
        self.choose(self.names[(at + by) % len(self.names)])

    def _draw(self) -> None:
        line, self._places = tabs_line(self.names, self.chosen)
        self.show((line,))

    def on_click(self, event: events.Click) -> None:
        name = next((name for x, width, name in self._places if x <= event.x < x + width), None)
        if name:
            self.choose(name)
