"""Carries instances over the board: the drag says what to do, the service what is legal."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

import msgspec
from textual import events
from textual.app import App
from textual.worker import Worker

from engine.control import (
    AddInstances,
    Change,
    Control,
    HeldWish,
    MoveInstance,
    MoveInstances,
)
from engine.core.errors import ControlError
from tui import drag
from tui.drag import Cargo, Kind
from tui.present.footprint import Footprint, footprint
from tui.present.legality import Legality, answered, at_once, tints, unanswered
from tui.view import View

DEBOUNCE_S = 0.15
"""A pointer that only passes over a slot asks nothing."""


class Ground(Protocol):
    """Where things are carried: the board."""

    def cargo_at(self, x: int, y: int) -> Cargo | None:
        """What a press there would take."""
        ...

    def slot_at(self, x: int, y: int) -> str | None:
        """The slot there, None outside the map."""
        ...

    def carried(self, carry: drag.Carry | None) -> None:
        """Show what is carried, or that nothing is any more."""
        ...

    def propose(self, change: Change) -> None:
        """Ask for the plan and show it."""
        ...


class Carrier:
    """The one place where the drag's state lives."""

    def __init__(
        self,
        app: App[None],
        ground: Ground,
        view: Callable[[], View],
        control: Callable[[], Control],
        clock: Callable[[], float],
    ) -> None:
        self._app = app
        self._ground = ground
        self._view = view
        self._control = control
        self._clock = clock
        self._drag: drag.Drag = None
        self._draft: HeldWish | None = None
        self._asking: Worker[None] | None = None
        self._just_dropped = False
        self.shape = Footprint()
        """What would be taken where the pointer is."""
        self.cost = Legality("maybe", "")
        """What is known of it at once."""
        self.legality = self.cost
        """What the service says, as soon as it has."""
        self.tints: Mapping[str, str] = {}

    @property
    def carry(self) -> drag.Carry | None:
        """What is carried now."""
        return self._drag if isinstance(self._drag, drag.Carry) else None

    def take(self, event: events.Event) -> bool:
        """Look at a mouse event before any widget does; True when no widget may see it.

        Widgets run in their own tasks, so one that captured the mouse on a press would miss the
        moves and the release that came in the same read, as they do over a lagging SSH.
        """
        if not isinstance(event, events.MouseEvent):
            return False
        x, y = event.screen_x, event.screen_y
        now = self._clock()
        match event:
            case events.MouseDown():
                self._just_dropped = False
                cargo = slot = None
                if event.button == 1:
                    cargo, slot = self._ground.cargo_at(x, y), self._ground.slot_at(x, y)
                return self._step(drag.Pressed(x, y, cargo, slot, now))
            case events.MouseMove() if self._drag is not None:
                return self._step(drag.Moved(x, y, self._ground.slot_at(x, y), now))
            case events.MouseUp() if self._drag is not None:
                swallowed = self._step(drag.Released(x, y, self._ground.slot_at(x, y), now))
                self._just_dropped = swallowed
                return swallowed
            case events.Click():  # the terminal's idea of a drag within one widget
                dropped, self._just_dropped = self._just_dropped, False
                return dropped
            case _:
                pass
        return False

    def pick_up(self, cargo: Cargo, slot: str | None, draft: HeldWish | None = None) -> None:
        """By a key; a draft is what a new instance shall be."""
        self._draft = draft
        self._step(drag.Picked(cargo, slot, self._clock()))

    def pull_out(self, cargo: Cargo, draft: HeldWish, event: events.MouseEvent) -> None:
        """By the mouse, out of the palette for new ones; `take` is given all that follows."""
        self._draft = draft
        x, y = event.screen_x, event.screen_y
        slot = self._ground.slot_at(x, y)
        self._step(drag.Picked(cargo, slot, self._clock(), x, y, by_mouse=True))

    def aim(self, slot: str) -> None:
        """By the map's cursor."""
        self._step(drag.Aimed(slot))

    def grow(self, by: int) -> None:
        """By keys: more or fewer cores."""
        self._step(drag.Grown(by))

    def drop(self) -> None:
        """By Enter."""
        self._step(drag.Dropped())

    def cancel(self, why: str = "") -> None:
        """Put it back."""
        self._step(drag.Cancelled(why))

    def tick(self) -> None:
        """Once a second: a mouse that went silent lets go."""
        self._step(drag.Tick(self._clock()))

    def _step(self, event: drag.Event) -> bool:
        before = self.carry
        done = drag.step(self._drag, event)
        self._drag = done.drag
        carry = self.carry
        if carry is not None and (
            before is None or (before.slot, before.cargo) != (carry.slot, carry.cargo)
        ):
            self._judge(carry, is_new=before is None or before.cargo != carry.cargo)
        if carry != before:
            if carry is None:
                self._stop_asking()
            self._ground.carried(carry)
        match done.effect:
            case drag.Ask():
                self._settle(done.effect)
            case drag.LetGo() if done.effect.why:
                self._app.notify(done.effect.why, title="Put back", markup=False, timeout=3)
        return done.swallow

    def _settle(self, ask: drag.Ask) -> None:
        view = self._view()
        if view.machine is None:
            return
        shape = footprint(view, view.machine, ask.cargo, ask.slot)
        known = at_once(view, view.machine, ask.cargo, shape)
        if known.final:
            self._app.notify(known.text, title="Put back", markup=False, timeout=3)
        elif (change := self._change(ask.cargo, shape)) is not None:
            self._ground.propose(change)

    def _change(self, cargo: Cargo, shape: Footprint) -> Change | None:
        first = shape.seats[0]
        if cargo.kind is Kind.DRAW:
            if self._draft is None:
                return None
            wish = msgspec.structs.replace(self._draft.wish, slot=first.slot)
            return AddInstances((replace(self._draft, wish=wish),))
        if len(shape.seats) == 1:
            return MoveInstance(first.name, first.slot)
        return MoveInstances(shape.seats)

    def _judge(self, carry: drag.Carry, *, is_new: bool) -> None:
        self._stop_asking()
        view = self._view()
        if view.machine is None:
            return
        if is_new:
            self.tints = tints(view, view.machine, carry.cargo)
        self.shape = footprint(view, view.machine, carry.cargo, carry.slot)
        self.cost = at_once(view, view.machine, carry.cargo, self.shape)
        self.legality = self.cost
        change = None if self.legality.final else self._change(carry.cargo, self.shape)
        if change is not None:
            work = self._ask(carry, self.shape, change)
            self._asking = self._app.run_worker(work, group="legality", exit_on_error=False)

    def _stop_asking(self) -> None:
        if self._asking:
            self._asking.cancel()
        self._asking = None

    async def _ask(self, asked: drag.Carry, shape: Footprint, change: Change) -> None:
        await asyncio.sleep(DEBOUNCE_S)
        try:
            legality = answered(await self._control().offer(change), shape)
        except ControlError as error:
            legality = unanswered(error)
        carry = self.carry
        if carry and (carry.cargo, carry.slot) == (asked.cargo, asked.slot):
            self.legality = legality
            self._ground.carried(carry)
