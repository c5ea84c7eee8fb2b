"""What every list of rows shares: one row is selected, and keys and clicks move to another."""

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Offset
from textual.scroll_view import ScrollView


class RowList(ScrollView, can_focus=True):
    """Says which rows there are and what selecting one does; the rest is here."""

    ALLOW_SELECT = False
    HEAD: ClassVar[int] = 0
    """Lines above the rows that stay where they are."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "step(-1)", show=False),
        Binding("down,j", "step(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "step(-9999)", show=False),
        Binding("end", "step(9999)", show=False),
        Binding("enter", "choose", show=False),
    ]

    @property
    def count(self) -> int:
        """How many rows can be selected."""
        raise NotImplementedError

    @property
    def at(self) -> int | None:
        """Which one is selected."""
        raise NotImplementedError

    def select(self, at: int) -> None:
        """Select another row."""
        raise NotImplementedError

    def choose(self, at: int) -> None:
        """Enter on the selected row, or two clicks."""
        raise NotImplementedError

    @property
    def rows_in_sight(self) -> int:
        """How many rows there is room for."""
        return max(1, self.size.height - self.HEAD)

    def action_page(self, by: int) -> None:
        self.action_step(by * max(1, self.rows_in_sight - 1))

    def action_step(self, by: int) -> None:
        if self.count:
            self.select(max(0, min(self.count - 1, (self.at or 0) + by)))

    def action_choose(self) -> None:
        if self.at is not None:
            self.choose(self.at)

    def keep_in_sight(self) -> None:
        """Scroll to the selected row where it is out of sight."""
        at = self.at
        if at is None:
            return
        top, room = self.scroll_offset.y, self.rows_in_sight
        if not top <= at < top + room:
            self.scroll_to(y=max(0, at if at < top else at - room + 1), animate=False, force=True)
            self.refresh()

    def row_at(self, screen: Offset) -> int | None:
        """The row under a cell of the screen."""
        region = self.content_region
        if not region.contains_point(screen):
            return None
        at = screen.y - region.y - self.HEAD
        at += self.scroll_offset.y if at >= 0 else 0
        return at if 0 <= at < self.count else None

    def glow(self, at: int) -> str:
        """What lies behind a row."""
        if at != self.at:
            return ""
        return "row:focus" if self.has_focus else "row"

    def on_click(self, event: events.Click) -> None:
        at = self.row_at(event.screen_offset)
        if at is None:
            return
        self.select(at)
        if event.chain == 2:
            self.choose(at)

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()
