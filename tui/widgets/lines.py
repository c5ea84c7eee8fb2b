"""A widget that shows ready-made lines of spans."""

from collections.abc import Sequence

from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from tui.present.ink import Line
from tui.widgets.palette import Palette


class Lines(Widget):
    """As high as its lines; draws only what changed."""

    ALLOW_SELECT = False

    class Widened(Message):
        """Lines are made for a width: this one may be another, or is only now known."""

    def __init__(self, palette: Palette, *, id: str | None = None) -> None:  # noqa: A002  Textual's name
        super().__init__(id=id)
        self._palette = palette
        self.lines: tuple[Line, ...] = ()

    def show(self, lines: Sequence[Line]) -> None:
        """Show these lines from now on."""
        new = tuple(lines)
        if new == self.lines:
            return
        other_height = len(new) != len(self.lines)
        self.lines = new
        self.refresh(layout=other_height)

    def on_resize(self) -> None:
        self.post_message(self.Widened())

    def on_show(self) -> None:
        self.post_message(self.Widened())

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self.lines)

    def render_line(self, y: int) -> Strip:
        line = self.lines[y] if y < len(self.lines) else ()
        return self._palette.strip(line, self.size.width, self.rich_style)
