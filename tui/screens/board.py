"""The main screen: machine, instances, the selected one's details and log, and the keys."""

import asyncio
from collections.abc import Callable
from typing import ClassVar

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.geometry import Offset
from textual.screen import Screen
from textual.worker import Worker

from engine.control import (
    Change,
    Control,
    MoveInstance,
    RestartInstances,
    StartInstances,
    StartLoad,
    StopInstances,
    StopLoad,
)
from engine.core.errors import ControlError
from engine.core.status import State
from tui.actions import ACTIONS, BY_ID, targets
from tui.drag import Carry
from tui.messages import InstanceSelected, SlotAimed, SlotChosen
from tui.present.badges import badges
from tui.present.details import long_details, short_details
from tui.present.glyphs import Glyphs, spelled
from tui.present.header import header_line
from tui.present.help_text import help_lines
from tui.present.ink import Line, Span
from tui.present.legality import Legality
from tui.present.map_groups import slot_pus
from tui.present.map_scene import held
from tui.present.text import clean, fit
from tui.screens.carrier import Carrier
from tui.screens.confirm import ConfirmScreen
from tui.screens.quit import QuitScreen
from tui.screens.reading import ReadingScreen
from tui.screens.save_layout import SaveScreen
from tui.screens.try_prompt import TryScreen
from tui.view import Connection, View
from tui.widgets.ghost import Ghost
from tui.widgets.instance_table import InstanceTable
from tui.widgets.key_bar import KeyBar
from tui.widgets.lines import Lines
from tui.widgets.log_pane import LogPane
from tui.widgets.machine_map import MachineMap
from tui.widgets.palette import Palette

LOG_EVERY_S = 1.0
Select = Callable[[str], None]


class BoardScreen(Screen[None]):
    """Shows a View; every wish of the user becomes a Change that is offered first."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (140, "-wide")]  # noqa: RUF012  declared so by Textual
    VERTICAL_BREAKPOINTS = [(0, "-tiny"), (10, "-low"), (18, "-high")]  # noqa: RUF012
    AUTO_FOCUS = "InstanceTable"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(each.key, f"do('{each.id}')", each.label, id=each.id) for each in ACTIONS),
        Binding("escape", "put_back", show=False),
    ]

    def __init__(
        self,
        panel: App[None],
        control: Callable[[], Control],
        select: Select,
        clock: Callable[[], float],
        palette: Palette,
        glyphs: Glyphs,
    ) -> None:
        super().__init__()
        self.view = View()
        self.opened = ""
        """The layout file that the panel was opened with."""
        self._control = control
        self._select = select
        self._clock = clock
        self._palette = palette
        self._glyphs = glyphs
        self._legality: Legality | None = None
        self._log_worker: Worker[None] | None = None
        self.carrier = Carrier(panel, self, lambda: self.view, control, clock)

    def compose(self) -> ComposeResult:
        yield Lines(self._palette, id="header")
        yield MachineMap(self._palette, self._glyphs, id="map")
        yield InstanceTable(self._palette, self._glyphs, id="table")
        with Container(id="lower"):
            yield Lines(self._palette, id="details")
            yield LogPane(id="log")
        yield KeyBar(self._palette, id="keys")
        yield Ghost(id="ghost")

    def on_mount(self) -> None:
        self.set_interval(1.0, self._tick)
        self.query_one("#details").border_title = "details"

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    def _tick(self) -> None:
        self.carrier.tick()
        self._draw_header()

    # Showing

    def present(self, view: View) -> None:
        """Show a newer view."""
        other = view.selected != self.view.selected
        self.view = view
        self.draw()
        if other:
            self._follow_log(view.selected)

    def draw(self) -> None:
        """Hand the view to every part."""
        self._draw_header()
        self.query_one(MachineMap).present(self.view)
        self.query_one(InstanceTable).present(self.view)
        self._draw_details()
        self.query_one(KeyBar).present(self.view, carrying=self.carrier.carry is not None)

    def _draw_header(self) -> None:
        header = self.query_one("#header", Lines)
        header.show((header_line(self.view, header.size.width, self._clock(), self._glyphs),))

    def _draw_details(self) -> None:
        details = self.query_one("#details", Lines)
        width, each = details.size.width, self.view.instance
        badge = badges(one.name for one in self.view.instances).get(self.view.selected or "")
        carry = self.carrier.carry
        if carry:
            details.show(carry_lines(carry, self._legality, width, self._glyphs))
        elif self.has_class("-wide"):
            details.show(long_details(each, badge, width, self._glyphs))
        else:
            details.show(short_details(each, badge, width, self._glyphs))

    # The log

    def _follow_log(self, name: str | None) -> None:
        if self._log_worker:
            self._log_worker.cancel()
        pane = self.query_one(LogPane)
        pane.follow(name)
        if name:
            work = self._read_log(name, pane)
            self._log_worker = self.app.run_worker(work, group="log", exit_on_error=False)

    async def _read_log(self, name: str, pane: LogPane) -> None:
        """About once a second, and only while it can be seen."""
        while pane.instance == name:
            is_gone = self.view.connection is Connection.GONE  # the app alone tries again
            if pane.is_on_screen and self.is_current and not is_gone:
                try:
                    lines = await self._control().log(name, offset=pane.offset_read)
                    pane.add(lines.text, lines.next_offset)
                except ControlError as error:
                    pane.say(f"{error.what}: {error.why}")
            await asyncio.sleep(LOG_EVERY_S)

    # Carrying

    def _forward_event(self, event: events.Event) -> None:
        """Every input event comes through here in order, before widgets have their turn."""
        if not self.carrier.take(event):
            super()._forward_event(event)

    def instance_at(self, x: int, y: int) -> str | None:
        """The instance whose row, or whose cell on the map, is there."""
        if not self.is_current or BY_ID["move"].why_not(self.view):
            return None
        name = self.query_one(InstanceTable).name_at(Offset(x, y))
        if name:
            return name
        slot = self.slot_at(x, y)
        return self._holder(slot) if slot and slot.startswith("core:") else None

    def slot_at(self, x: int, y: int) -> str | None:
        """The slot of the map there."""
        return self.query_one(MachineMap).slot_at(Offset(x, y))

    def _holder(self, slot: str) -> str | None:
        if self.view.machine is None:
            return None
        pus = slot_pus(self.view.machine, slot)
        return next((each.name for each in self.view.instances if held(each) & pus), None)

    def carried(self, carry: Carry | None, legality: Legality | None) -> None:
        """Light the slot, move the ghost, say what is legal."""
        self._legality = legality
        verdict = legality.verdict if legality else "maybe"
        self.query_one(MachineMap).aim(carry.slot if carry else None, verdict)
        ghost = self.query_one(Ghost)
        if carry and carry.by_mouse:
            ghost.hang(carry.name, carry.slot, carry.x, carry.y, self.app.size)
        else:
            ghost.display = False
        self._draw_details()
        self.query_one(KeyBar).present(self.view, carrying=carry is not None)

    def propose_move(self, name: str, slot: str) -> None:
        """A drop only ever asks."""
        self.propose(MoveInstance(name, slot))

    def action_put_back(self) -> None:
        if self.carrier.carry:
            self.carrier.cancel("nothing was moved")
        elif self.has_class("-log"):
            self.do_log()

    def on_screen_suspend(self) -> None:
        self.carrier.cancel()

    def on_slot_aimed(self, message: SlotAimed) -> None:
        self.carrier.aim(message.slot)

    def on_slot_chosen(self, message: SlotChosen) -> None:
        if self.carrier.carry:
            self.carrier.drop()
        elif name := self._holder(message.slot):
            self._select(name)

    def on_instance_selected(self, message: InstanceSelected) -> None:
        self._select(message.name)

    # Offering

    def propose(self, change: Change) -> None:
        """Ask what the change would do, and show that to be confirmed."""
        self.app.run_worker(
            self._propose(change), group="offer", exclusive=True, exit_on_error=False
        )

    async def _propose(self, change: Change) -> None:
        try:
            offer = await self._control().offer(change)
            if isinstance(change, StopLoad) and not offer.refusals:
                await self._control().apply(offer)  # ends only what b has started
                return
        except ControlError as error:
            self.tell(error)
            return
        dialog = ConfirmScreen(self._control(), change, offer, self._palette, self._glyphs)
        self.app.push_screen(dialog)

    def tell(self, error: ControlError) -> None:
        """An error as a toast: what, why, what to do."""
        words = f"{clean(error.why)}. {clean(error.do)}"
        self.app.notify(words, title=clean(error.what), severity="error", markup=False)

    # Actions

    def action_do(self, action_id: str) -> None:
        """Do it, or say why not."""
        action = BY_ID[action_id]
        if self.carrier.carry:
            self.carrier.cancel()
        if reason := action.why_not(self.view):
            self.app.notify(clean(reason), title=action.label, severity="warning", markup=False)
            return
        # What needs no board, such as another screen, is the app's to do.
        own = getattr(self, f"do_{action.id}", None)
        (own or getattr(self.app, f"do_{action.id}"))()

    def do_start(self) -> None:
        self.propose(StartInstances(targets(self.view, "start")))

    def do_restart(self) -> None:
        self.propose(RestartInstances(targets(self.view, "restart")))

    def do_stop(self) -> None:
        self.propose(StopInstances(targets(self.view, "stop")))

    def do_forget(self) -> None:
        self.propose(StopInstances(targets(self.view, "forget"), forget=True))

    def do_load(self) -> None:
        if self.view.snapshot and self.view.snapshot.load:
            self.propose(StopLoad())
            return
        ready = tuple(each.name for each in self.view.instances if each.state is State.READY)
        self.propose(StartLoad(ready))

    def do_move(self) -> None:
        if self.view.selected:
            board_map = self.query_one(MachineMap)
            board_map.focus()
            self.carrier.pick_up(self.view.selected, board_map.cursor)

    def do_try(self) -> None:
        if self.view.selected:
            self.app.push_screen(
                TryScreen(self._control(), self.view.selected, self._palette, self._glyphs)
            )

    def do_save(self) -> None:
        self.app.run_worker(self._save(), group="layout", exclusive=True, exit_on_error=False)

    async def _save(self) -> None:
        try:
            held = await self._control().layout()
            machine = self.view.machine or await self._control().machine()
        except ControlError as error:
            self.tell(error)
            return
        path = self.opened or held.path or "layout.toml"
        self.app.push_screen(SaveScreen(held, machine, path, self._palette, self._glyphs))

    def do_log(self) -> None:
        self.toggle_class("-log")
        focus = LogPane if self.has_class("-log") else InstanceTable
        self.query_one(focus).focus()

    def do_help(self) -> None:
        self._read("Help", lambda width: help_lines(self.view, width, self._glyphs))

    def do_quit(self) -> None:
        def answered(leave: bool | None, /) -> None:  # noqa: FBT001  Textual calls it
            if leave:
                self.app.exit()

        self.app.push_screen(QuitScreen(self.view, self._palette, self._glyphs), answered)

    def _read(self, title: str, lines: Callable[[int], list[Line]]) -> None:
        self.app.push_screen(ReadingScreen(title, lines, self._palette, self._glyphs))


def carry_lines(carry: Carry, legality: Legality | None, width: int, glyphs: Glyphs) -> list[Line]:
    """What is carried where, and whether it may go there."""
    ink = {"good": "good", "bad": "error"}.get(legality.verdict if legality else "", "warning")
    words = spelled(fit(f" {legality.text if legality else ''}", width, more=glyphs.more), glyphs)
    slot = carry.slot or "choose a slot"
    return [
        (
            Span(" Moving ", "accent"),
            Span(clean(carry.name), "name"),
            Span(f" {glyphs.arrow} {slot}", "text"),
        ),
        (Span(words, ink),),
    ]
