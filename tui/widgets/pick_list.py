"""A list of ready-made rows of which one is selected."""

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.present.ink import Line
from tui.widgets.palette import Palette


class PickList(ScrollView, can_focus=True):
    """Tells which row was moved to, and which was chosen."""

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "step(-1)", show=False),
        Binding("down,j", "step(1)", show=False),
        Binding("pageup", "step(-10)", show=False),
        Binding("pagedown", "step(10)", show=False),
        Binding("home", "step(-9999)", show=False),
        Binding("end", "step(9999)", show=False),
        Binding("enter", "choose", show=False),
    ]

    class Moved(Message):
        """Another row is selected."""

        def __init__(self, at: int) -> None:
            super().__init__()
            self.at = at

    class Chosen(Message):
        """Enter, or a second click."""

        def __init__(self, at: int) -> None:
            super().__init__()
            self.at = at

    def __init__(self, palette: Palette, *, id: str | None = None) -> None:  # noqa: A002  Textual's name
        super().__init__(id=id)
        self._palette = palette
        self._rows: tuple[Line, ...] = ()
        self.selected = 0

    def present(self, rows: Sequence[Line]) -> None:
        """Show these rows."""
        self._rows = tuple(rows)
        self.virtual_size = Size(self.size.width, len(rows))
        self.refresh()

    def render_line(self, y: int) -> Strip:
        at = y + self.scroll_offset.y
        width = self.size.width
        if at >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        glow = ("row:focus" if self.has_focus else "row") if at == self.selected else ""
        return self._palette.strip(self._rows[at], width, self.rich_style, glow)

    def action_step(self, by: int) -> None:
        self._select(max(0, min(len(self._rows) - 1, self.selected + by)))

    def action_choose(self) -> None:
        if self._rows:
            self.post_message(self.Chosen(self.selected))

    def _select(self, at: int) -> None:
        if not self._rows or at == self.selected:
            return
        self.selected = at
        top = self.scroll_offset.y
        if not top <= at < top + self.size.height:
            first = at if at < top else at - self.size.height + 1
            self.scroll_to(y=max(0, first), animate=False, force=True)
        self.refresh()
        self.post_message(self.Moved(at))

    def on_click(self, event: events.Click) -> None:
        at = event.screen_offset.y - self.content_region.y + self.scroll_offset.y
        if 0 <= at < len(self._rows):
            self._select(at)
            if event.chain == 2:
                self.action_choose()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()
