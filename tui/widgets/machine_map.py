"""The machine map: one Line-API widget, since a widget for each core is 50 times dearer."""

from collections.abc import Mapping
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Offset, Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from engine.core.status import Snapshot
from engine.core.topology import Machine
from tui.direct import lies_open, write_cells
from tui.messages import SlotAimed, SlotChosen
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span, cut
from tui.present.map_parts import Plan
from tui.present.map_picture import Picture
from tui.present.map_plan import map_plan
from tui.present.map_scene import Scene, map_scene, same_setting
from tui.present.map_titles import crumb_line, legend, slot_text
from tui.present.map_walk import first_slot, neighbour, next_core
from tui.present.map_zoom import MACHINE, farther, nearer, path
from tui.view import View
from tui.widgets.palette import Palette

SHARE_OF_SCREEN = 0.45
"""How much of the screen's height the map may ask for."""
MOST_PLANS = 16
TITLE_INDENT = 1
"""Cells between the left border's padding and the title's first letter."""


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
        self._picture: Picture | None = None
        self._said: Line = ()
        self.cursor: str | None = None
        self.target: str | None = None
        self.verdict = "maybe"
        self.zoom = MACHINE
        """The part of the machine that is shown."""
        self.by_core = False
        """Whether arrows go from core to core, as while an end is moved."""
        self._tints: Mapping[str, str] = {}
        self._crumbs: Line = ()
        self.border_title = MACHINE

    # What is shown

    def present(self, view: View) -> None:
        """Show a newer view; only rows that changed are drawn."""
        before, self._view = self._view, view
        if view.machine is before.machine and view.snapshot and same_setting(before, view):
            self._move_on(view.snapshot)
            return
        if view.machine is not before.machine:
            if view.machine and self.zoom not in path(view.machine, self.zoom):
                self.zoom = MACHINE
            self._rearrange()
        self._redraw()

    def aim(
        self, target: str | None, verdict: str = "maybe", tints: Mapping[str, str] | None = None
    ) -> None:
        """Light the slots that would be taken, and tint where it could go; None ends that."""
        told = (target, verdict, tints or {})
        if told != (self.target, self.verdict, self._tints):
            self.target, self.verdict, self._tints = told
            self._redraw()

    def look(self, *, nearer_by_one: bool) -> str | None:
        """Show less in more detail, or more in less. What stands against it, or None."""
        machine = self._view.machine
        if machine is None:
            return "the machine is not read yet"
        to = (
            nearer(machine, self.zoom, self.cursor)
            if nearer_by_one
            else farther(machine, self.zoom)
        )
        if to is None:
            if not nearer_by_one:
                return "all of the machine is shown"
            return "choose a package, a NUMA node or a core with the arrows first"
        self.show_part(to)
        return None

    def show_part(self, zoom: str) -> None:
        """Show this part of the machine; the cursor stays where it can."""
        if zoom == self.zoom:
            return
        came_from, self.zoom = self.zoom, zoom
        self._rearrange()
        where = self._plan.area(came_from) if self._plan else None
        if where is not None and where.y >= 0:
            self.put_cursor(came_from)
        elif self._plan and self.cursor and self._plan.area(self.cursor) is None:
            self.cursor = first_slot(self._plan)
        self._redraw()

    def _rearrange(self) -> None:
        self._plans.clear()
        self._arrange()
        self.refresh(layout=True)

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
            tints=self._tints,
            glyphs=self._glyphs,
        )
        self._breadcrumbs()
        self._subtitle()
        self._repaint()

    def _move_on(self, snapshot: Snapshot) -> None:
        """The same instances on the same cores, a moment later."""
        if self._scene is None:
            return
        self._scene = self._scene.moved(snapshot)
        if self._stands_on_gpu():
            self._subtitle()
        self._repaint()

    def _repaint(self) -> None:
        """Write the cells that changed; by the compositor where something may lie upon them."""
        plan, scene = self._plan, self._scene
        if plan is None or scene is None:
            return
        if self._picture is None:
            self._picture = Picture(plan, scene)
            return  # whoever has set the plan has asked for all of it
        top, (width, height) = self.scroll_offset.y, self.size
        runs = [
            (y - top, x, min(size, width - x))
            for y, x, size in self._picture.take(scene)
            if top <= y < top + height and x < width
        ]
        if not runs:
            return
        if not lies_open(self):
            for y, x, size in runs:
                self.refresh(Region(x, y, size, 1))
            return
        corner, picture, base = self.content_region.offset, self._picture, self.rich_style
        write_cells(
            self,
            (
                (corner.x + x, corner.y + y, picture.cells(y + top)[x : x + size])
                for y, x, size in runs
            ),
            lambda ink, glow, colours: self._palette.codes(ink, glow, base, colours),
        )

    def _breadcrumbs(self) -> None:
        """Where we are, in the title; set only when it changed."""
        if self._plan is None or self._scene is None:
            return
        line = crumb_line(self._plan.way, self._scene)
        if line != self._crumbs:
            self._crumbs = line
            self.border_title = self._palette.content(line)

    def _stands_on_gpu(self) -> bool:
        """Whether figures that move stand in the subtitle."""
        slot = self.target or (self.cursor if self.has_focus else None)
        return slot is not None and slot.startswith("gpu:")

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
            self._plans[key] = map_plan(machine, width, budget, self.zoom)
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
        self._picture = None
        self.virtual_size = Size(width, plan.height)
        if plan.area(self.cursor) is None:
            self.cursor = first_slot(plan)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if self._plan is None or self._scene is None:
            return Strip.blank(width, self.rich_style)
        if self._picture is None:
            self._picture = Picture(self._plan, self._scene)
        line = self._picture.line(y + self.scroll_offset.y)
        return self._palette.strip(line, width, self.rich_style)

    # The pointer and the cursor

    def slot_at(self, screen: Offset) -> str | None:
        """The slot under a cell of the screen, None outside the map."""
        region = self.content_region
        if self._plan is None:
            return None
        at = screen - region.offset
        if at.y == -1:  # the title, with the breadcrumbs
            return self._plan.slot_at(at.x - TITLE_INDENT, -1)
        if not region.contains_point(screen):
            return None
        return self._plan.slot_at(at.x + self.scroll_offset.x, at.y + self.scroll_offset.y)

    def put_cursor(self, slot: str) -> None:
        """Stand on a slot and scroll it into sight."""
        area = self._plan.area(slot) if self._plan else None
        if area is None:
            return
        self.cursor = slot
        self.scroll_to_region(
            Region(0, max(0, area.y), 1, min(area.height, max(1, self.size.height))),
            animate=False,
            force=True,
        )
        self._redraw()
        self.post_message(SlotAimed(slot))

    def put_cursor_at(self, slot: str) -> None:
        """The same for a slot that may be out of what is shown."""
        if self._plan and self._plan.area(slot) is None:
            self.show_part(MACHINE)
        self.put_cursor(slot)

    def action_walk(self, direction: str) -> None:
        if self._plan is None:
            return
        walk = next_core if self.by_core else neighbour
        if slot := walk(self._plan, self.cursor, direction):
            self.put_cursor(slot)

    def action_choose(self) -> None:
        if self.cursor:
            self.post_message(SlotChosen(self.cursor))

    def on_click(self, event: events.Click) -> None:
        slot = self.slot_at(event.screen_offset)
        if not slot:
            return
        if self.target is None and event.chain == 2:
            self.look_at(slot)
            return
        self.put_cursor(slot)
        self.post_message(SlotChosen(slot))

    def look_at(self, slot: str) -> None:
        """Go nearer to this slot, or back to a breadcrumb."""
        self.put_cursor(slot)
        if self._plan and slot in self._plan.way:
            self.show_part(slot)
        else:
            self.look(nearer_by_one=True)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        if event.ctrl:
            event.stop()
            event.prevent_default()
            if slot := self.slot_at(event.screen_offset):
                self.put_cursor(slot)
            self.look(nearer_by_one=True)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        if event.ctrl:
            event.stop()
            event.prevent_default()
            self.look(nearer_by_one=False)

    def watch_has_focus(self, has_focus: bool) -> None:  # noqa: FBT001  Textual calls it
        # Not on_focus, which runs before the widget has its focus.
        super().watch_has_focus(has_focus)
        self._redraw()
