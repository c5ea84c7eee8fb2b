"""The line in which the words of a filter or a search are written."""

from textual import events
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget

from tui.messages import FilterChanged, FilterEntered
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span, cut
from tui.present.text import clean
from tui.widgets.palette import Palette

LONGEST = 200


class FilterLine(Widget, can_focus=True):
    """Takes keys while it is open: enter keeps the words, escape drops them."""

    ALLOW_SELECT = False

    def __init__(
        self,
        palette: Palette,
        glyphs: Glyphs,
        *,
        hint: str = "words; !word: without it",
        id: str | None = None,  # noqa: A002  Textual's name
    ) -> None:
        super().__init__(id=id)
        self._palette = palette
        self._glyphs = glyphs
        self._hint = hint
        self.words = ""
        self.display = False

    def open(self) -> None:
        """Take the keys."""
        self.display = True
        self.focus()
        self.refresh()

    def drop(self) -> bool:
        """Forget the words; False where there were none and the line was closed."""
        had = self.display or bool(self.words)
        self._set("")
        self.display = False
        return had

    def _set(self, words: str) -> None:
        words = words[:LONGEST]
        if words != self.words:
            self.words = words
            self.post_message(FilterChanged(words))
        self.refresh()

    def _close(self) -> None:
        self.display = bool(self.words)
        if self.has_focus:
            self.screen.focus_next()
        self.refresh()

    def check_consume_key(self, key: str, character: str | None) -> bool:
        return character is not None and character.isprintable()

    def on_key(self, event: events.Key) -> None:
        match event.key:
            case "enter":
                self._close()
                self.post_message(FilterEntered(self.words))
            case "escape":
                self.drop()
                self._close()
            case "backspace":
                self._set(self.words[:-1])
            case "ctrl+u":
                self._set("")
            case _ if event.is_printable and event.character:
                self._set(self.words + event.character)
            case _:
                return
        event.stop()
        event.prevent_default()

    def on_paste(self, event: events.Paste) -> None:
        self._set(self.words + clean(event.text))
        event.stop()

    def on_click(self) -> None:
        self.open()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.display = bool(self.words)
        self.refresh()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return 1

    def render_line(self, y: int) -> Strip:
        line: Line = (Span(" /", "key"), Span(self.words, "name"))
        if self.has_focus:
            hint = f"{self._hint}; enter keeps, esc drops"
            line = (*line, Span(" ", "brand"), Span("  " + spelled(hint, self._glyphs), "faint"))
        else:
            line = (*line, Span("  esc drops the filter", "faint"))
        shown = cut(line, self.size.width, self._glyphs.more)
        return self._palette.strip(shown, self.size.width, self.rich_style)
