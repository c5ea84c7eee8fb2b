"""Carries an instance over the board: the drag says what to do, the service what is legal."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from textual import events
from textual.app import App
from textual.worker import Worker

from engine.control import Control, MoveInstance
from engine.core.errors import ControlError
from tui import drag
from tui.present.legality import Legality, answered, at_once, unanswered
from tui.view import View

DEBOUNCE_S = 0.15
"""A pointer that only passes over a slot asks nothing."""


class Ground(Protocol):
    """Where things are carried: the board."""

    def instance_at(self, x: int, y: int) -> str | None:
        """The instance whose row or cell is there."""
        ...

    def slot_at(self, x: int, y: int) -> str | None:
        """The slot there, None outside the map."""
        ...

    def carried(self, carry: drag.Carry | None, legality: Legality | None) -> None:
        """Show what is carried, or that nothing is any more."""
        ...

    def propose_move(self, name: str, slot: str) -> None:
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
        self._legality: Legality | None = None
        self._asking: Worker[None] | None = None
        self._just_dropped = False

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
                name = self._ground.instance_at(x, y) if event.button == 1 else None
                return self._step(drag.Pressed(x, y, name, now))
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

    def pick_up(self, name: str, slot: str | None) -> None:
        """By the move key."""
        self._step(drag.Picked(name, slot, self._clock()))

    def aim(self, slot: str) -> None:
        """By the map's cursor."""
        self._step(drag.Aimed(slot))

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
        if carry is not None and (before is None or before.slot != carry.slot):
            self._judge(carry)
        if carry != before:
            if carry is None:
                self._stop_asking()
            self._ground.carried(carry, self._legality)
        match done.effect:
            case drag.AskToMove():
                self._settle(done.effect)
            case drag.LetGo() if done.effect.why:
                self._app.notify(done.effect.why, title="Put back", markup=False)
        return done.swallow

    def _settle(self, ask: drag.AskToMove) -> None:
        machine = self._view().machine
        known = at_once(self._view(), machine, ask.name, ask.slot) if machine else None
        if known and known.final:
            self._app.notify(known.text, title="Put back", markup=False)
        else:
            self._ground.propose_move(ask.name, ask.slot)

    def _judge(self, carry: drag.Carry) -> None:
        self._stop_asking()
        machine = self._view().machine
        if machine is None:
            return
        self._legality = at_once(self._view(), machine, carry.name, carry.slot)
        if not self._legality.final and carry.slot is not None:
            work = self._ask(carry.name, carry.slot)
            self._asking = self._app.run_worker(work, group="legality", exit_on_error=False)

    def _stop_asking(self) -> None:
        if self._asking:
            self._asking.cancel()
        self._asking = None

    async def _ask(self, name: str, slot: str) -> None:
        await asyncio.sleep(DEBOUNCE_S)
        try:
            legality = answered(await self._control().offer(MoveInstance(name, slot)), name, slot)
        except ControlError as error:
            legality = unanswered(error)
        carry = self.carry
        if carry and (carry.name, carry.slot) == (name, slot):
            self._legality = legality
            self._ground.carried(carry, legality)
