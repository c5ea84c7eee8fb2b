"""The selected instance's log: follows its end, stands still while you read further up."""

from rich.highlighter import Highlighter
from rich.text import Text
from textual import events
from textual.content import Content
from textual.widgets import Log

from tui.present.text import clean, clean_lines
from tui.present.units import count

MOST_LINES = 5000
PAUSED = "paused: End follows again"


class _Found(Highlighter):
    """Shows where the words of a search stand."""

    def __init__(self, words: str) -> None:
        self._words = words

    def highlight(self, text: Text) -> None:
        text.highlight_words([self._words], "reverse", case_sensitive=False)


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
        self._words = ""
        self._found_at: int | None = None

    def follow(self, name: str | None) -> None:
        """Read another instance's log from its end."""
        self.instance = name
        self.offset_read = -1
        self._tail = ""
        self.is_following = True
        self._found_at = None
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

    # Searching and copying

    def search(self, words: str) -> None:
        """Show where these words stand; none end the search."""
        self._words, self._found_at = words, None
        self.highlight = bool(words)
        self.highlighter = _Found(words)
        self._render_line_cache.clear()
        self.refresh()
        self._entitle()

    def step_found(self, by: int) -> str:
        """Go to the next line with the words, or the one before; says what stands in the way."""
        if not self._words:
            return "there is nothing to look for: / takes the words"
        words = self._words.casefold()
        found = [at for at, line in enumerate(self.lines) if words in line.casefold()]
        if not found:
            return f"none of the {count(len(self.lines), 'line')} read has {clean(self._words)!r}"
        here = self._found_at
        if here is None:
            here = len(self.lines) if by < 0 else -1
        ahead = [at for at in found if (at > here if by > 0 else at < here)]
        self._found_at = (ahead or found)[0 if by > 0 else -1]
        self.is_following = False
        top = max(0, self._found_at - self.size.height // 2)
        self.scroll_to(y=top, animate=False, force=True)
        self._entitle()
        return ""

    def copied(self) -> tuple[str, str]:
        """The found line, or else all that is in sight, and what that is in words."""
        if self._found_at is not None and self._found_at < len(self.lines):
            return self.lines[self._found_at], "the line that was found"
        top = self.scroll_offset.y
        seen = self.lines[top : top + self.size.height]
        return "\n".join(seen).rstrip(), f"{count(len(seen), 'line')} of the log"

    def on_key(self, event: events.Key) -> None:
        if event.key in ("up", "pageup", "home") and self.max_scroll_y > 0:
            self.is_following = False
        elif event.key == "end":
            self.is_following = True
        self._entitle()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
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
        below = "" if self.is_following else PAUSED
        if self._words:
            words = self._words.casefold()
            many = sum(words in line.casefold() for line in self.lines)
            below = f"{count(many, 'line')} with {clean(self._words)!r}: n next, N before"
        self._title(f"log {name}".rstrip(), below)

    def _title(self, above: str, below: str) -> None:
        if (above, below) != self._titles:
            self._titles = (above, below)
            self.border_title, self.border_subtitle = Content(above), Content(below)
