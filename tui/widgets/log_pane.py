"""The selected instance's log: follows its end, stands still while you read further up."""

from textual import events
from textual.content import Content
from textual.widgets import Log

from tui.present.text import clean, clean_lines

MOST_LINES = 5000
PAUSED = "paused: End follows again"


class LogPane(Log):
    """Text that others wrote: nothing in it reaches the terminal as a command."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  Textual's name
        super().__init__(max_lines=MOST_LINES, id=id)
        self.instance: str | None = None
        self.offset_read = -1
        self.is_following = True
        """Only the reader ends this; a pane that was resized is still at the end."""
        self._tail = ""
        self._titles = ("", "")

    def follow(self, name: str | None) -> None:
        """Read another instance's log from its end."""
        self.instance = name
        self.offset_read = -1
        self._tail = ""
        self.is_following = True
        self.clear()
        self._entitle()

    def add(self, text: str, next_offset: int) -> None:
        """Text that came since; a line that has not ended waits for its end."""
        if 0 <= next_offset < self.offset_read:  # the file was cut: what is shown is history
            self.write_line("… the log starts again …", scroll_end=self.is_following)
        self.offset_read = next_offset
        if text:
            *whole, self._tail = (self._tail + text).split("\n")
            if whole:
                self.write_lines(
                    clean_lines("\n".join(whole)).split("\n"), scroll_end=self.is_following
                )
        self._entitle()

    def say(self, words: str) -> None:
        """A line of ours, set apart."""
        self.border_subtitle = Content(clean(words))

    def on_key(self, event: events.Key) -> None:
        if event.key in ("up", "pageup", "home") and self.max_scroll_y > 0:
            self.is_following = False
        elif event.key == "end":
            self.is_following = True
        self._entitle()

    def on_mouse_scroll_up(self) -> None:
        self.is_following = self.max_scroll_y <= 0
        self._entitle()

    def on_resize(self) -> None:
        if self.is_following:
            self.scroll_end(animate=False, x_axis=False)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if round(new_value) >= self.max_scroll_y:
            self.is_following = True
        elif self.app.mouse_captured is self.vertical_scrollbar:
            self.is_following = False
        self._entitle()

    def _entitle(self) -> None:
        name = clean(self.instance or "")
        self._title(f"log {name}".rstrip(), "" if self.is_following else PAUSED)

    def _title(self, above: str, below: str) -> None:
        if (above, below) != self._titles:
            self._titles = (above, below)
            self.border_title, self.border_subtitle = Content(above), Content(below)
