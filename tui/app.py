"""The panel: follows the service, keeps the View, and shows faults once."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from rich.console import RenderableType
from textual._compositor import ChopsUpdate
from textual.app import App, SystemCommand
from textual.screen import Screen
from textual.worker import Worker, WorkerState

from engine.client import AnotherVersion
from engine.control import ApplyLayout, Control
from engine.core.errors import ControlError
from engine.core.status import Happening, Snapshot
from tui.actions import ACTIONS
from tui.backpressure import terminal_is_behind
from tui.exact_update import ExactUpdate
from tui.hangup import hung_up
from tui.messages import ConnectionChanged, LookAgain, MachineRead, SnapshotArrived
from tui.present.glyphs import ASCII, UNICODE
from tui.present.happenings import fresh
from tui.present.text import clean
from tui.screens.board import BoardScreen
from tui.view import Connection, View
from tui.widgets.palette import Palette
from tui.widgets.schemes import DARK, Scheme

Reconnect = Callable[[], Awaitable[Control]]
CATCH_UP_S = 0.1
LOOK_FOR_HANGUP_S = 0.5
LONGEST_WAIT_S = 15.0
"""Between two attempts to reach a service that is gone."""


@runtime_checkable
class Closing(Protocol):
    """A control that holds links."""

    async def aclose(self) -> None:
        """Let go of them."""


class SlotdeckApp(App[None]):
    """A thin client of one Control."""

    TITLE = "slotdeck"
    CSS_PATH = "styles/slotdeck.tcss"
    ALLOW_SELECT = True

    def __init__(
        self,
        control: Control,
        *,
        readonly: bool = False,
        ascii_only: bool = False,
        reconnect: Reconnect | None = None,
        layout: ApplyLayout | None = None,
        clock: Callable[[], float] = time.monotonic,
        retry_s: float = 1.5,
        terminal: int | None = None,
        host: str = "",
        scheme: Scheme = DARK,
    ) -> None:
        """`layout` is offered once connected; `terminal`: the descriptor watched for hang-ups."""
        super().__init__()
        self.control = control
        self.view = View(readonly=readonly, host=host)
        self._reconnect = reconnect
        self._layout = layout
        self._clock = clock
        self._retry_s = retry_s
        self._terminal = terminal
        self._wait_s = retry_s
        self._late: SnapshotArrived | None = None
        self._faults: set[str] = set()
        glyphs = ASCII if ascii_only else UNICODE
        if glyphs.half and not scheme.halves:
            glyphs = replace(glyphs, half=None)
        palette = Palette(scheme)
        self.board = BoardScreen(self, lambda: self.control, self.select, clock, palette, glyphs)
        if layout is not None:
            self.board.opened = str(Path(layout.base, Path(layout.name).name))
        self.register_theme(scheme.theme)
        self.theme = scheme.theme.name

    def get_default_screen(self) -> Screen[None]:
        return self.board

    def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        if self._terminal is not None:
            for number in (signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, self.exit)
            self.set_interval(LOOK_FOR_HANGUP_S, self._look_for_hangup)

    def on_ready(self) -> None:
        """The first frame stands; now there is something to draw into."""
        self.run_worker(self._follow(), group="snapshots", exit_on_error=False)

    def _look_for_hangup(self) -> None:
        if self._terminal is not None and hung_up(self._terminal):
            self.exit()

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        if type(renderable) is ChopsUpdate:
            renderable = ExactUpdate.of(renderable)
        super()._display(screen, renderable)

    # The service

    async def _follow(self) -> None:
        """Snapshots for as long as the panel is open; a lost service is a state, not an end."""
        self._wait_s = self._retry_s
        while True:
            try:
                await self._follow_once()
                why = "the service ended"
            except (ControlError, OSError) as error:
                why = _in_words(error)
            await self._wait(why)
            while self._reconnect is not None:
                try:
                    fresh = await self._reconnect()
                except (ControlError, OSError) as error:
                    await self._wait(_in_words(error))
                    continue
                old, self.control = self.control, fresh
                if old is not fresh and isinstance(old, Closing):
                    await old.aclose()
                break

    async def _wait(self, why: str) -> None:
        """Say what is wrong and when it is tried again: later each time."""
        at = self._clock() + self._wait_s
        self.post_message(ConnectionChanged(Connection.GONE, why, at))
        await asyncio.sleep(self._wait_s)
        self._wait_s = min(self._wait_s * 2, LONGEST_WAIT_S)

    async def _follow_once(self) -> None:
        revision: str | None = None
        async for snapshot in self.control.snapshots():
            if snapshot.revision != revision:
                self.post_message(MachineRead(await self.control.machine()))
                revision = snapshot.revision
                self.post_message(ConnectionChanged(Connection.LIVE))
                self._wait_s = self._retry_s
            self.post_message(SnapshotArrived(snapshot, self._clock()))

    def on_snapshot_arrived(self, message: SnapshotArrived) -> None:
        if terminal_is_behind(self):
            if self._late is None:
                # Not set_timer: Textual drops a timer that is already due when its task starts,
                # which is just what a busy terminal brings about.
                loop = asyncio.get_running_loop()
                loop.call_later(CATCH_UP_S, self.post_message, LookAgain())
            self._late = message
            return
        self._late = None  # an older one that waited is worth nothing now
        self._take(message)

    def on_look_again(self) -> None:
        message, self._late = self._late, None
        if message:
            self.on_snapshot_arrived(message)

    def _take(self, message: SnapshotArrived) -> None:
        snapshot, before = message.snapshot, self.view.snapshot
        names = [each.name for each in snapshot.instances]
        selected = self.view.selected
        if selected not in names:
            selected = names[0] if names else None
        self._show(replace(self.view, snapshot=snapshot, arrived_at=message.at, selected=selected))
        if before is not None:
            for each in fresh(before.happenings, snapshot.happenings):
                self._toast(each)
        self._offer_layout(snapshot)

    def _offer_layout(self, _: Snapshot) -> None:
        layout, self._layout = self._layout, None
        if layout is None:
            return
        if self.view.readonly:
            words = "this panel was opened with --readonly"
            self.notify(words, title="The layout is not applied", severity="warning")
            return
        self.board.propose(layout)

    def on_machine_read(self, message: MachineRead) -> None:
        if message.machine != self.view.machine:
            self._show(replace(self.view, machine=message.machine))

    def on_connection_changed(self, message: ConnectionChanged) -> None:
        before = self.view.connection
        self._show(
            replace(
                self.view,
                connection=message.connection,
                why_gone=message.why,
                retry_at=message.retry_at,
            )
        )
        host = clean(self.view.host)
        if message.connection is Connection.GONE and before is not Connection.GONE:
            self.notify(
                f"{clean(message.why)}. Engines keep running; trying again.",
                title=f"No link to {host}" if host else "The service is gone",
                severity="error",
                markup=False,
            )
        elif message.connection is Connection.LIVE and before is Connection.GONE and host:
            self.notify("What is shown is true again.", title=f"{host} answers", markup=False)

    def select(self, name: str) -> None:
        """Make an instance the selected one."""
        if self.view.named(name):
            self._show(replace(self.view, selected=name))

    def _show(self, view: View) -> None:
        self.view = view
        self.board.present(view)

    # Toasts

    def _toast(self, each: Happening) -> None:
        severity = each.severity if each.severity in ("warning", "error") else "information"
        if severity == "error":
            self.notify(clean(each.text), severity="error", timeout=10, markup=False)
        elif severity == "warning":
            self.notify(clean(each.text), severity="warning", markup=False)
        else:
            self.notify(clean(each.text), timeout=3, markup=False)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """A bug in background work: shown once, and the panel stays."""
        if event.state is not WorkerState.ERROR:
            return
        words = f"{type(event.worker.error).__name__}: {event.worker.error}"
        if words not in self._faults:
            self._faults.add(words)
            title = f"A fault in the panel ({event.worker.group})"
            self.notify(clean(words), title=title, severity="error", timeout=20, markup=False)

    # The palette

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        for action in ACTIONS:
            reason = action.why_not(self.view)
            does = f"{action.does} (not now: {reason})" if reason else action.does
            yield SystemCommand(
                f"{action.label} ({action.shown_key})",
                does,
                lambda action_id=action.id: self.board.action_do(action_id),
            )
        yield SystemCommand("Theme", "Change the colours", self.action_change_theme)


def _in_words(error: ControlError | OSError) -> str:
    match error:
        case AnotherVersion():
            return str(error)  # what to do is not to wait
        case ControlError():
            return f"{error.what}: {error.why}"
        case OSError():
            return str(error)
