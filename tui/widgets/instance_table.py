"""The instance table: a fixed header and one row for each instance, drawn by changed row."""

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Offset, Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.messages import InstanceSelected
from tui.present.badges import badges
from tui.present.changes import changed_runs
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span
from tui.present.instance_row import fitting, head_row, instance_row
from tui.view import View
from tui.widgets.palette import Palette

MOST_ROWS = 12
EMPTY = "No instances yet. Give a layout to place some: slotdeck LAYOUT.toml"


class InstanceTable(ScrollView, can_focus=True):
    """One row is always selected while there is one."""

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "step(-1)", show=False),
        Binding("down,j", "step(1)", show=False),
        Binding("home", "step(-9999)", show=False),
        Binding("end", "step(9999)", show=False),
    ]

    def __init__(self, palette: Palette, glyphs: Glyphs, *, id: str | None = None) -> None:  # noqa: A002  Textual's name
        super().__init__(id=id)
        self._palette = palette
        self._glyphs = glyphs
        self._view = View()
        self._head: Line = ()
        self._rows: list[Line] = []
        self.border_title = "instances"

    def present(self, view: View) -> None:
        """Show a newer view."""
        other_count = len(view.instances) != len(self._view.instances)
        self._view = view
        if other_count:
            self.refresh(layout=True)
        self._redraw()

    def _redraw(self) -> None:
        view, width = self._view, self.size.width
        columns = fitting(view.instances, width)
        names = badges(each.name for each in view.instances)
        head = head_row(columns)
        rows = [
            instance_row(
                each, columns, names[each.name], self._glyphs, selected=each.name == view.selected
            )
            for each in view.instances
        ]
        if not rows:
            head, rows = (), [(Span(" " + spelled(EMPTY, self._glyphs), "muted"),)]
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
        return 1 + min(most, max(1, len(self._view.instances)))

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
        if at < len(self._view.instances) and self._view.instances[at].name == self._view.selected:
            glow = "row:focus" if self.has_focus else "row"
        return self._palette.strip(self._rows[at], width, self.rich_style, glow)

    def name_at(self, screen: Offset) -> str | None:
        """The instance whose row is under a cell of the screen."""
        region = self.content_region
        if not region.contains_point(screen) or screen.y == region.y:
            return None
        at = screen.y - region.y - 1 + self.scroll_offset.y
        return self._view.instances[at].name if at < len(self._view.instances) else None

    def action_step(self, by: int) -> None:
        names = [each.name for each in self._view.instances]
        if not names:
            return
        here = names.index(self._view.selected) if self._view.selected in names else 0
        name = names[max(0, min(len(names) - 1, here + by))]
        self.post_message(InstanceSelected(name))
        self.call_after_refresh(self._keep_selected_in_sight)

    def _keep_selected_in_sight(self) -> None:
        names = [each.name for each in self._view.instances]
        if self._view.selected not in names:
            return
        at, shown = names.index(self._view.selected), max(1, self.size.height - 1)
        top = self.scroll_offset.y
        if not top <= at < top + shown:
            self.scroll_to(y=max(0, at - shown + 1), animate=False, force=True)
            self.refresh()

    def on_click(self, event: events.Click) -> None:
        if name := self.name_at(event.screen_offset):
            self.post_message(InstanceSelected(name))

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()
