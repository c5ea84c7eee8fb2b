"""The instance table: a fixed header and one row for each instance, drawn by changed row."""

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Offset, Region, Size
from textual.scroll_view import ScrollView
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

MOST_ROWS = 12
EMPTY = "No instances yet. Give a layout to place some: slotdeck LAYOUT.toml, or press o"
FILTERED = "No instance has these words. Esc shows all again"


class InstanceTable(ScrollView, can_focus=True):
    """One row is always selected while there is one."""

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "step(-1)", show=False),
        Binding("down,j", "step(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "step(-9999)", show=False),
        Binding("end", "step(9999)", show=False),
        Binding("enter", "open", show=False),
    ]

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
        self._keep_selected_in_sight()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y == 0:
            return self._palette.strip(self._head, width, self.rich_style)
        at = y - 1 + self.scroll_offset.y
        if at >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        glow = ""
        if at < len(self._listed) and self._listed[at].name == self._view.selected:
            glow = "row:focus" if self.has_focus else "row"
        return self._palette.strip(self._rows[at], width, self.rich_style, glow)

    def name_at(self, screen: Offset) -> str | None:
        """The instance whose row is under a cell of the screen."""
        region = self.content_region
        if not region.contains_point(screen) or screen.y == region.y:
            return None
        at = screen.y - region.y - 1 + self.scroll_offset.y
        return self._listed[at].name if at < len(self._listed) else None

    def action_page(self, by: int) -> None:
        self.action_step(by * max(1, self.size.height - 2))

    def action_step(self, by: int) -> None:
        names = self.listed
        if not names:
            return
        here = names.index(self._view.selected) if self._view.selected in names else 0
        name = names[max(0, min(len(names) - 1, here + by))]
        self.post_message(InstanceSelected(name))
        self.call_after_refresh(self._keep_selected_in_sight)

    def action_open(self) -> None:
        if self._view.selected in self.listed:
            self.post_message(InstanceOpened(self._view.selected or ""))

    def _keep_selected_in_sight(self) -> None:
        names = self.listed
        if self._view.selected not in names:
            return
        at, shown = names.index(self._view.selected), max(1, self.size.height - 1)
        top = self.scroll_offset.y
        if not top <= at < top + shown:
            first = at if at < top else at - shown + 1
            self.scroll_to(y=max(0, first), animate=False, force=True)
            self.refresh()

    def on_click(self, event: events.Click) -> None:
        if name := self.name_at(event.screen_offset):
            self.post_message(InstanceSelected(name))
            if event.chain == 2:
                self.post_message(InstanceOpened(name))
            return
        at = event.screen_offset - self.content_region.offset
        if at.y == 0 and (column := column_at(self._columns, at.x)):
            self.post_message(ColumnChosen(column))

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()
