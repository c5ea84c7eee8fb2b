"""The instance table: a fixed header and one row for each instance, drawn by changed row."""

from collections.abc import Sequence

from textual import events
from textual.geometry import Offset, Region, Size
from textual.strip import Strip

from engine.core.status import InstanceStatus
from tui.messages import ColumnChosen, InstanceOpened, InstanceSelected
from tui.present.badges import badges
from tui.present.changes import changed_runs
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span
from tui.present.instance_row import (
    COLUMNS,
    Column,
    Columns,
    column_at,
    fitting,
    head_row,
    instance_row,
)
from tui.present.listing import Listing
from tui.view import View
from tui.widgets.palette import Palette
from tui.widgets.row_list import RowList

MOST_ROWS = 12
EMPTY = "No instances yet. Give a layout to place some: slotdeck LAYOUT.toml, or press o"
FILTERED = "No instance has these words. Esc shows all again"


class InstanceTable(RowList):
    """One row is always selected while there is one."""

    HEAD = 1

    def __init__(
        self,
        palette: Palette,
        glyphs: Glyphs,
        *,
        columns: Sequence[Column] = COLUMNS,
        id: str | None = None,  # noqa: A002  Textual's name
    ) -> None:
        super().__init__(id=id)
        self._palette = palette
        self._glyphs = glyphs
        self._all_columns = columns
        self._view = View()
        self.listing = Listing()
        """Which are shown in which order; `present` takes it up."""
        self._listed: tuple[InstanceStatus, ...] = ()
        self._columns = Columns((), ())
        self._head: Line = ()
        self._rows: list[Line] = []
        self.border_title = "instances"

    def present(self, view: View) -> None:
        """Show a newer view."""
        self._view = view
        listed = self.listing.of(view.instances)
        other_count = len(listed) != len(self._listed)
        self._listed = listed
        if other_count:
            self.refresh(layout=True)
        self._redraw()

    @property
    def count(self) -> int:
        return len(self._listed)

    @property
    def at(self) -> int | None:
        names = self.listed
        return names.index(self._view.selected) if self._view.selected in names else None

    @property
    def listed(self) -> tuple[str, ...]:
        """Names in the order that is shown."""
        return tuple(each.name for each in self._listed)

    @property
    def rows(self) -> list[Line]:
        """Head and rows as they are shown."""
        return [self._head, *self._rows]

    def _redraw(self) -> None:
        view, width = self._view, self.size.width
        columns = self._columns = fitting(self._listed, width, self._all_columns)
        names = badges(each.name for each in view.instances)
        sign = self._glyphs.descending if self.listing.descending else self._glyphs.ascending
        head = head_row(columns, sorted_by=self.listing.sorted_by, sign=sign)
        rows = [
            instance_row(
                each,
                columns,
                names[each.name],
                self._glyphs,
                selected=each.name == view.selected,
                marked=each.name in view.marked,
            )
            for each in self._listed
        ]
        if not rows:
            words = FILTERED if view.instances else EMPTY
            head, rows = (), [(Span(" " + spelled(words, self._glyphs), "muted"),)]
        self.virtual_size = Size(width, len(rows) + 1)
        if head != self._head or len(rows) != len(self._rows):
            self._head, self._rows = head, rows
            self.refresh()
            return
        for at, (old, new) in enumerate(zip(self._rows, rows, strict=True)):
            if old != new:
                y = at + 1 - self.scroll_offset.y
                if 0 < y < self.size.height:
                    for x, size in changed_runs(old, new):
                        self.refresh(Region(x, y, size, 1))
        self._rows = rows

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        most = max(2, min(MOST_ROWS, viewport.height // 4))
        return 1 + min(most, max(1, len(self._listed)))

    def on_resize(self) -> None:
        self._redraw()
        self.keep_in_sight()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y == 0:
            return self._palette.strip(self._head, width, self.rich_style)
        at = y - 1 + self.scroll_offset.y
        if at >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        return self._palette.strip(self._rows[at], width, self.rich_style, self.glow(at))

    def name_at(self, screen: Offset) -> str | None:
        """The instance whose row is under a cell of the screen."""
        at = self.row_at(screen)
        return self._listed[at].name if at is not None else None

    def select(self, at: int) -> None:
        self.post_message(InstanceSelected(self.listed[at]))
        self.call_after_refresh(self.keep_in_sight)

    def choose(self, at: int) -> None:
        self.post_message(InstanceOpened(self.listed[at]))

    def on_click(self, event: events.Click) -> None:
        at = event.screen_offset - self.content_region.offset
        if at.y == 0 and (column := column_at(self._columns, at.x)):
            self.post_message(ColumnChosen(column))
