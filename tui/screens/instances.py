"""All instances: sorted, filtered, several marked for one action."""

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

from textual.binding import BindingType
from textual.widget import Widget

from tui.desk import Desk
from tui.messages import ColumnChosen, FilterChanged, InstanceSelected
from tui.present.badges import badges
from tui.present.details import short_details
from tui.present.instance_row import ALL_COLUMNS
from tui.present.listing import Listing
from tui.present.units import count
from tui.screens.page import Page, page_bindings
from tui.widgets.filter_line import FilterLine
from tui.widgets.instance_table import InstanceTable
from tui.widgets.lines import Lines

SORTABLE = ("", *(column.id for column in ALL_COLUMNS))
"""Empty is the service's own order."""


class InstancesScreen(Page):
    """A table as high as the screen."""

    PAGE = "instances"
    AUTO_FOCUS = "InstanceTable"
    BINDINGS: ClassVar[list[BindingType]] = page_bindings("instances")

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.listing = Listing()

    def body(self) -> Iterable[Widget]:
        palette, glyphs = self.desk.palette, self.desk.glyphs
        yield InstanceTable(palette, glyphs, columns=ALL_COLUMNS, id="all")
        yield Lines(palette, id="details")
        yield FilterLine(palette, glyphs, id="filter")

    def show(self) -> None:
        view = self.desk.view()
        table = self.query_one(InstanceTable)
        table.listing = self.listing
        table.present(view)
        table.border_title = self._title(len(table.listed), len(view.instances))
        details = self.query_one("#details", Lines)
        badge = badges(each.name for each in view.instances).get(view.selected or "")
        details.show(short_details(view.instance, badge, details.size.width, self.desk.glyphs))

    def _title(self, listed: int, there_are: int) -> str:
        many = count(there_are, "instance") if listed == there_are else f"{listed} of {there_are}"
        marked = len(self.desk.view().marked)
        return f"{many}, {marked} marked" if marked else many

    def _list(self, listing: Listing) -> None:
        self.listing = listing
        self.draw()
        listed = self.query_one(InstanceTable).listed
        if listed and self.desk.view().selected not in listed:
            self.desk.select(listed[0])

    def on_instance_selected(self, message: InstanceSelected) -> None:
        self.desk.select(message.name)

    def on_filter_changed(self, message: FilterChanged) -> None:
        self._list(replace(self.listing, words=message.words))

    def on_column_chosen(self, message: ColumnChosen) -> None:
        again = message.column == self.listing.sorted_by
        turned = again and not self.listing.descending
        self._list(replace(self.listing, sorted_by=message.column, descending=turned))

    # Actions

    def do_sort_right(self) -> None:
        self._sort(1)

    def do_sort_left(self) -> None:
        self._sort(-1)

    def _sort(self, by: int) -> None:
        at = (SORTABLE.index(self.listing.sorted_by) + by) % len(SORTABLE)
        self._list(replace(self.listing, sorted_by=SORTABLE[at]))

    def do_reverse(self) -> None:
        self._list(replace(self.listing, descending=not self.listing.descending))

    def do_mark(self) -> None:
        view, table = self.desk.view(), self.query_one(InstanceTable)
        if view.selected:
            self.desk.mark(view.marked ^ {view.selected})
            table.action_step(1)

    def do_mark_all(self) -> None:
        listed = frozenset(self.query_one(InstanceTable).listed)
        marked = self.desk.view().marked
        self.desk.mark(marked - listed if listed <= marked else marked | listed)

    def do_copy(self) -> None:
        rows = self.query_one(InstanceTable).rows
        self.copy_lines(rows, "the table")

    def do_back(self) -> None:
        if not self.query_one(FilterLine).display and self.desk.view().marked:
            self.desk.mark(frozenset())
            return
        super().do_back()
