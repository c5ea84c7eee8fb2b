"""A list of ready-made rows of which one is selected."""

from collections.abc import Sequence

from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip

from tui.present.ink import Line
from tui.widgets.palette import Palette
from tui.widgets.row_list import RowList


class PickList(RowList):
    """Tells which row was moved to, and which was chosen."""

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

    @property
    def count(self) -> int:
        return len(self._rows)

    @property
    def at(self) -> int | None:
        return self.selected if self.selected < len(self._rows) else None

    def present(self, rows: Sequence[Line]) -> None:
        """Show these rows."""
        is_other_count = len(rows) != len(self._rows)
        self._rows = tuple(rows)
        self.virtual_size = Size(self.size.width, len(rows))
        self.refresh(layout=is_other_count)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._rows)

    def render_line(self, y: int) -> Strip:
        at = y + self.scroll_offset.y
        width = self.size.width
        if at >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        return self._palette.strip(self._rows[at], width, self.rich_style, self.glow(at))

    def on_resize(self) -> None:
        self.keep_in_sight()

    def select(self, at: int) -> None:
        if at == self.selected:
            return
        self.selected = at
        self.keep_in_sight()
        self.refresh()
        self.post_message(self.Moved(at))

    def choose(self, at: int) -> None:
        self.post_message(self.Chosen(at))
