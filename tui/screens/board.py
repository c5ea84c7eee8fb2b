"""The main screen: machine, instances, the selected one's details and log, and the keys."""

from collections.abc import Callable
from typing import ClassVar

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.geometry import Offset
from textual.screen import Screen

from engine.control import (
    Change,
    Control,
    HeldWish,
    Redo,
    RestartInstances,
    StartInstances,
    StartLoad,
    StopInstances,
    StopLoad,
    Undo,
)
from engine.core.errors import ControlError
from engine.core.status import State
from tui.actions import ACTIONS, BY_ID, targets
from tui.dialogs import Dialogs
from tui.drag import Cargo, Carry, Kind, move
from tui.log_reader import LogReader
from tui.messages import InstanceSelected, SlotAimed, SlotChosen
from tui.present.badges import badges
from tui.present.carry_text import carry_lines, ghost_text
from tui.present.details import long_details, short_details
from tui.present.glyphs import Glyphs, spelled
from tui.present.header import header_line
from tui.present.map_scene import end_of, handle_at, holder
from tui.present.text import clean
from tui.screens.carrier import Carrier
from tui.view import Connection, View
from tui.widgets.ghost import Ghost
from tui.widgets.instance_table import InstanceTable
from tui.widgets.key_bar import KeyBar
from tui.widgets.lines import Lines
from tui.widgets.log_pane import LogPane
from tui.widgets.machine_map import MachineMap
from tui.widgets.palette import Palette

Select = Callable[[str], None]


class BoardScreen(Screen[None]):
    """Shows a View; every wish of the user becomes a Change that is offered first."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (140, "-wide")]  # noqa: RUF012  declared so by Textual
    VERTICAL_BREAKPOINTS = [(0, "-tiny"), (10, "-low"), (18, "-high")]  # noqa: RUF012
    AUTO_FOCUS = "InstanceTable"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(each.key, f"do('{each.id}')", each.label, id=each.id) for each in ACTIONS),
        Binding("escape", "put_back", show=False),
        Binding("right_square_bracket", "grow(1)", show=False),
        Binding("left_square_bracket", "grow(-1)", show=False),
    ]

    def __init__(
        self,
        panel: App[None],
        control: Callable[[], Control],
        select: Select,
        clock: Callable[[], float],
        palette: Palette,
        glyphs: Glyphs,
        mark: Callable[[frozenset[str]], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self._mark = mark
        self.view = View()
        self.first_view = View()
        """What is known before the first frame."""
        self._control = control
        self._select = select
        self._clock = clock
        self._palette = palette
        self._glyphs = glyphs
        self._log = LogReader(
            lambda: self.app, lambda: self.query_one(LogPane), control, self._log_is_wanted
        )
        self.carrier = Carrier(panel, self, lambda: self.view, control, clock)
        self.dialogs = Dialogs(panel, self, control, palette, glyphs)

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
        self.present(self.first_view)

    def on_lines_widened(self) -> None:
        self.draw()

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
            self._log.follow(view.selected)

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
            it = self.carrier
            details.show(carry_lines(carry, it.shape, it.cost, it.legality, width, self._glyphs))
        elif self.has_class("-wide"):
            details.show(long_details(each, badge, width, self._glyphs))
        else:
            details.show(short_details(each, badge, width, self._glyphs))

    # The log

    def _log_is_wanted(self) -> bool:
        # Where the service is gone, the app alone tries again.
        return self.is_current and self.view.connection is not Connection.GONE

    # Carrying

    def _forward_event(self, event: events.Event) -> None:
        """Every input event comes through here in order, before widgets have their turn."""
        if not self.carrier.take(event):
            super()._forward_event(event)

    def cargo_at(self, x: int, y: int) -> Cargo | None:
        """What a press there takes: a row or cell of an instance, with all that are marked if it
        is one of those; an end of the selected one resizes it."""
        if not self.is_current or BY_ID["move"].why_not(self.view):
            return None
        name = self.query_one(InstanceTable).name_at(Offset(x, y))
        slot = self.slot_at(x, y)
        if name is None and slot and self.view.machine:
            if (resized := handle_at(self.view, self.view.machine, slot)) is not None:
                return resized
            if slot.startswith(("core:", "pu:", "gpu:")):
                name = self._holder(slot)
        if name is None:
            return None
        return move(*(self._marked() if name in self.view.marked else (name,)))

    def _marked(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.view.chosen)

    def slot_at(self, x: int, y: int) -> str | None:
        """The slot of the map there."""
        return self.query_one(MachineMap).slot_at(Offset(x, y))

    def _holder(self, slot: str) -> str | None:
        return holder(self.view, self.view.machine, slot) if self.view.machine else None

    def carried(self, carry: Carry | None) -> None:
        """Light the slots, move the ghost, say what is legal."""
        verdict, shape = self.carrier.legality.verdict, self.carrier.shape
        board_map = self.query_one(MachineMap)
        board_map.by_core = carry is not None and carry.cargo.anchor is not None
        if carry:
            board_map.aim(shape.slot or carry.slot, verdict, self.carrier.tints)
        else:
            board_map.aim(None)
        ghost = self.query_one(Ghost)
        if carry and carry.by_mouse:
            words = spelled(ghost_text(carry, shape, self.carrier.legality), self._glyphs)
            ghost.hang(words, verdict, carry.x, carry.y, self.app.size)
        else:
            ghost.display = False
        self._draw_details()
        self.query_one(KeyBar).present(self.view, carrying=carry is not None)

    def action_put_back(self) -> None:
        if self.carrier.carry:
            self.carrier.cancel("nothing was moved")
        elif self.has_class("-log"):
            self.do_log()
        elif self.view.marked:
            self._mark(frozenset())

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
        from tui.screens.confirm import ConfirmScreen

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
        if self.carrier.carry and not action.carrying:
            self.carrier.cancel()
        if reason := action.why_not(self.view):
            self.app.notify(clean(reason), title=action.label, severity="warning", markup=False)
            return
        # What needs no board is the dialogs' to do, or the app's, such as another screen.
        does = f"do_{action.id}"
        holder = next(one for one in (self, self.dialogs, self.app) if hasattr(one, does))
        getattr(holder, does)()

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
        board_map = self.query_one(MachineMap)
        board_map.focus()
        self.carrier.pick_up(move(*self._marked()), board_map.cursor)

    def do_resize(self) -> None:
        """The last core goes to where the arrows are; again, and the first one does."""
        if self.view.machine is None:
            return
        carry = self.carrier.carry
        cargo, core = end_of(self.view, self.view.machine, carry.cargo if carry else None)
        board_map = self.query_one(MachineMap)
        board_map.focus()
        self.carrier.pick_up(cargo, core)
        board_map.put_cursor_at(core)

    def place(self, draft: HeldWish | None, /) -> None:
        """What was chosen hangs on the cursor: draw it on cores, or drop it on a place."""
        if draft is None:
            return
        board_map = self.query_one(MachineMap)
        board_map.focus()
        self.carrier.pick_up(_new(draft), board_map.cursor, draft)

    def pull_out(self, draft: HeldWish, event: events.MouseEvent) -> None:
        """What was chosen hangs on the pointer, whose button is down."""
        self.carrier.pull_out(_new(draft), draft, event)

    def follow(self, event: events.MouseEvent) -> None:
        """A move, or the release, that came before the palette was gone."""
        self.carrier.take(event)

    def do_undo(self) -> None:
        self.propose(Undo())

    def do_redo(self) -> None:
        self.propose(Redo())

    def do_mark(self) -> None:
        if (name := self.view.selected) is not None:
            self._mark(self.view.marked ^ {name})

    def do_nearer(self) -> None:
        self._look(nearer_by_one=True)

    def do_farther(self) -> None:
        self._look(nearer_by_one=False)

    def _look(self, *, nearer_by_one: bool) -> None:
        if words := self.query_one(MachineMap).look(nearer_by_one=nearer_by_one):
            self.app.notify(words, severity="warning", markup=False, timeout=3)

    def action_grow(self, by: int) -> None:
        self.carrier.grow(by)

    def do_log(self) -> None:
        self.toggle_class("-log")
        focus = LogPane if self.has_class("-log") else InstanceTable
        self.query_one(focus).focus()


def _new(draft: HeldWish) -> Cargo:
    return Cargo(Kind.DRAW, (draft.wish.name,))
