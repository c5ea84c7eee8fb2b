"""The machine map: one Line-API widget, since a widget for each core is 50 times dearer."""

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Offset, Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from engine.core.topology import Machine
from tui.messages import SlotAimed, SlotChosen
from tui.present.changes import changed_runs
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span, cut
from tui.present.map_cells import map_row
from tui.present.map_plan import Plan, map_plan
from tui.present.map_scene import Scene, map_scene
from tui.present.map_titles import legend, slot_text
from tui.present.map_walk import first_slot, neighbour
from tui.view import View
from tui.widgets.palette import Palette

SHARE_OF_SCREEN = 0.45
"""How much of the screen's height the map may ask for."""
MOST_PLANS = 16


class MachineMap(ScrollView, can_focus=True):
    """Packages, NUMA nodes, cores; who holds them and how busy they are."""

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "walk('up')", show=False),
        Binding("down,j", "walk('down')", show=False),
        Binding("left,h", "walk('left')", show=False),
        Binding("right", "walk('right')", show=False),
        Binding("enter", "choose", show=False),
    ]

    def __init__(self, palette: Palette, glyphs: Glyphs, *, id: str | None = None) -> None:  # noqa: A002  Textual's name
        super().__init__(id=id)
        self._palette = palette
        self._glyphs = glyphs
        self._view = View()
        self._plan: Plan | None = None
        self._plans: dict[tuple[int, int], Plan] = {}
        """By width and rows allowed; layout asks for several."""
        self._scene: Scene | None = None
        self._painted: dict[int, Line] = {}
        self._said: Line = ()
        self.cursor: str | None = None
        self.target: str | None = None
        self.verdict = "maybe"
        self.border_title = "machine"

    # What is shown

    def present(self, view: View) -> None:
        """Show a newer view; only rows that changed are drawn."""
        new_machine = view.machine is not self._view.machine
        self._view = view
        if new_machine:
            self._plans.clear()
            self._arrange()
            self.refresh(layout=True)
        self._redraw()

    def aim(self, target: str | None, verdict: str = "maybe") -> None:
        """Light the slot that an instance is carried over; None ends that."""
        if (target, verdict) != (self.target, self.verdict):
            self.target, self.verdict = target, verdict
            self._redraw()

    def _redraw(self) -> None:
        machine = self._view.machine
        if machine is None:
            return
        self._scene = map_scene(
            self._view,
            machine,
            cursor=self.cursor if self.has_focus else None,
            target=self.target,
            verdict=self.verdict,
            glyphs=self._glyphs,
        )
        self._subtitle()
        plan = self._plan
        if plan is None:
            return
        top, width = self.scroll_offset.y, self.size.width
        for y in range(top, min(plan.height, top + self.size.height)):
            line = map_row(plan, self._scene, y)
            old = self._painted.get(y)
            if old == line:
                continue
            self._painted[y] = line
            runs = [(0, width)] if old is None else changed_runs(old, line)
            for x, size in runs:
                self.refresh(Region(x, y - top, size, 1))
        for y in [y for y in self._painted if not top <= y < top + self.size.height]:
            del self._painted[y]

    def _subtitle(self) -> None:
        """What the cursor stands on, else the legend; set only when it changed, as it repaints."""
        if (self.has_focus or self.target) and (slot := self.target or self.cursor):
            line: Line = (Span(spelled(slot_text(self._view, slot), self._glyphs), "text"),)
        else:
            line = legend(self._view, self._glyphs)
        line = cut(line, max(0, self.size.width - 4), self._glyphs.more)
        if line != self._said:
            self._said = line
            self.border_subtitle = self._palette.content(line)

    # Where everything stands

    def _plan_for(self, machine: Machine, width: int) -> Plan:
        budget = max(4, int(self.app.size.height * SHARE_OF_SCREEN) - 2)
        key = (width, budget)
        if key not in self._plans:
            if len(self._plans) > MOST_PLANS:
                self._plans.clear()
            self._plans[key] = map_plan(machine, width, budget)
        return self._plans[key]

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        # Only asks: a widget that changes while it is measured is laid out for ever.
        if self._view.machine is None:
            return 3
        budget = max(4, int(viewport.height * SHARE_OF_SCREEN) - 2)
        return min(self._plan_for(self._view.machine, width).height, budget)

    def on_resize(self) -> None:
        self._arrange()
        self._redraw()

    def _arrange(self) -> None:
        """Take the plan for the width there is."""
        machine, width = self._view.machine, self.size.width
        if machine is None or not width:
            return
        plan = self._plan_for(machine, width)
        if plan is self._plan:
            return
        self._plan = plan
        self._painted.clear()
        self.virtual_size = Size(width, plan.height)
        if plan.area(self.cursor) is None:
            self.cursor = first_slot(plan)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if self._plan is None or self._scene is None:
            return Strip.blank(width, self.rich_style)
        row = y + self.scroll_offset.y
        line = self._painted.get(row)
        if line is None:
            line = self._painted[row] = map_row(self._plan, self._scene, row)
        return self._palette.strip(line, width, self.rich_style)

    # The pointer and the cursor

    def slot_at(self, screen: Offset) -> str | None:
        """The slot under a cell of the screen, None outside the map."""
        region = self.content_region
        if self._plan is None or not region.contains_point(screen):
            return None
        at = screen - region.offset
        return self._plan.slot_at(at.x + self.scroll_offset.x, at.y + self.scroll_offset.y)

    def put_cursor(self, slot: str) -> None:
        """Stand on a slot and scroll it into sight."""
        area = self._plan.area(slot) if self._plan else None
        if area is None:
            return
        self.cursor = slot
        self.scroll_to_region(
            Region(0, area.y, 1, min(area.height, max(1, self.size.height))),
            animate=False,
            force=True,
        )
        self._redraw()
        self.post_message(SlotAimed(slot))

    def action_walk(self, direction: str) -> None:
        if self._plan and (slot := neighbour(self._plan, self.cursor, direction)):
            self.put_cursor(slot)

    def action_choose(self) -> None:
        if self.cursor:
            self.post_message(SlotChosen(self.cursor))

    def on_click(self, event: events.Click) -> None:
        slot = self.slot_at(event.screen_offset)
        if slot:
            self.put_cursor(slot)
            self.post_message(SlotChosen(slot))

    def on_focus(self) -> None:
        self._redraw()

    def on_blur(self) -> None:
        self._redraw()
