"""The panel: follows the service, keeps the View, opens screens, and shows faults once."""

import asyncio
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.app import SystemCommand
from textual.filter import LineFilter
from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.worker import Worker, WorkerState

from engine.control import ApplyLayout, Control
from engine.core.status import Happening, Snapshot
from engine.core.topology import Machine
from tui.actions import BY_ID
from tui.ascii_filter import AsciiFilter
from tui.backpressure import terminal_is_behind
from tui.desk import Desk, no_checkup, no_comparison
from tui.exact_compositor import ExactCompositor
from tui.exact_update import ExactLayout, ExactUpdate
from tui.follower import Follower, Reconnect
from tui.hangup import hung_up
from tui.messages import (
    ConnectionChanged,
    LookAgain,
    MachineRead,
    PastRead,
    SnapshotArrived,
)
from tui.opens_pages import OpensPages
from tui.own_fault import KeepsFault
from tui.present.commands import commands
from tui.present.glyphs import ASCII, UNICODE
from tui.present.happenings import Event, fresh
from tui.present.keys import keys_of, shown
from tui.present.text import clean
from tui.screens.board import BoardScreen
from tui.screens.page import Page
from tui.terminal import TerminalKind
from tui.trails import Trails
from tui.view import Connection, View
from tui.widgets.palette import Palette
from tui.widgets.schemes import DARK, Scheme, turned

if TYPE_CHECKING:
    from engine.ab_process import Compare
    from tui.desk import Checkup

CATCH_UP_S = 0.1
LOOK_FOR_HANGUP_S = 0.5
EVENTS_KEPT = 2000


class SlotdeckApp(OpensPages, KeepsFault):
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
        kind: TerminalKind | None = None,
        keys: Mapping[str, str] | None = None,
        mouse: bool = True,
        layouts: Path | None = None,
        checkup: "Checkup" = no_checkup,
        compare: "Compare" = no_comparison,
        first: tuple[Machine, Snapshot] | None = None,
        who: str = "",
        utc: Callable[[], str] = lambda: datetime.now(UTC).isoformat(timespec="seconds"),
    ) -> None:
        """`layout` is offered once connected; `terminal`: the descriptor watched for hang-ups;
        `keys`: of the user's own choice; `layouts`: the folder with the user's own; `first`: what
        is known already, for the first frame; `who`: as the service calls this panel."""
        super().__init__(ansi_color=scheme.theme.ansi or None)
        self._follower = Follower(control, reconnect, self.post_message, clock, retry_s)
        self.view = View(readonly=readonly, host=host, keys=dict(keys or {}))
        self._kind = kind or TerminalKind("truecolor")
        self._mouse_at_first = mouse
        self._utc = utc
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._told: tuple[Happening, ...] = ()
        """Happenings of the newest snapshot."""
        self._is_first_look = True
        self._who = who
        self._layout = layout
        self._clock = clock
        self._terminal = terminal
        self._late: SnapshotArrived | None = None
        self.parting = ""
        """To be said on the terminal, should the panel close now."""
        self._faults: set[str] = set()
        glyphs = ASCII if ascii_only else UNICODE
        self.set_class(ascii_only, "-ascii")
        if glyphs.half and not scheme.halves:
            glyphs = replace(glyphs, half=None)
        self._palette = Palette(scheme)
        self.trails = Trails()
        self.board = BoardScreen(
            self, lambda: self.control, self.select, clock, self._palette, glyphs, self.mark
        )
        self.board._compositor = ExactCompositor()
        self.desk = Desk(
            view=lambda: self.view,
            control=lambda: self.control,
            clock=clock,
            act=self.board.action_do,
            propose=self.board.propose,
            tell=self.board.tell,
            copy=self.copy,
            checkup=checkup,
            compare=compare,
            part=self.part,
            save=self.board.dialogs.save,
            select=self.select,
            mark=self.mark,
            events=lambda: tuple(self._events),
            trails=self.trails,
            palette=self._palette,
            glyphs=glyphs,
            opened=lambda: self.board.dialogs.opened,
            folder=layouts,
        )
        self.board.dialogs.folder = layouts
        if first is not None:
            self.board.first_view = self.view = self.view.seen(*first, clock())
        if layout is not None:
            self.board.dialogs.opened = str(Path(layout.base, Path(layout.name).name))
        self.register_theme(scheme.theme)
        self.theme = scheme.theme.name

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Textual's translate ANSI colours, of which our own schemes have none."""
        theirs = super().get_line_filters() if self._palette.scheme.theme.ansi else ()
        return (*theirs, AsciiFilter()) if self.has_class("-ascii") else theirs

    @property
    def control(self) -> Control:
        """The service that answers now."""
        return self._follower.control

    def get_default_screen(self) -> Screen[None]:
        return self.board

    def on_mount(self) -> None:
        if self.view.keys:
            self.set_keymap(dict(self.view.keys))
        loop = asyncio.get_running_loop()
        if self._terminal is not None:
            for number in (signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, self.exit)
            self.set_interval(LOOK_FOR_HANGUP_S, self._look_for_hangup)

    def on_ready(self) -> None:
        """The first frame stands; now there is something to draw into."""
        if not self._mouse_at_first:
            self.do_mouse()
        self.run_worker(self._follower.run(), group="snapshots", exit_on_error=False)

    def _look_for_hangup(self) -> None:
        if self._terminal is not None and hung_up(self._terminal):
            self.exit()

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        if type(renderable) is ChopsUpdate:
            renderable = ExactUpdate.of(renderable)
        elif type(renderable) is LayoutUpdate:
            renderable = ExactLayout.of(renderable)
        super()._display(screen, renderable)

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
        snapshot = message.snapshot
        names = [each.name for each in snapshot.instances]
        selected = self.view.selected
        if selected not in names:
            selected = names[0] if names else None
        self.trails.add(snapshot, message.at)
        news = fresh(self._told, snapshot.happenings)
        self._told = snapshot.happenings
        self._events.extend(Event.of(each) for each in news)
        self._show(
            replace(
                self.view,
                snapshot=snapshot,
                arrived_at=message.at,
                selected=selected,
                marked=self.view.marked & frozenset(names),
            )
        )
        if not self._is_first_look:
            for each in news:
                if not (self._who and each.text.startswith(f"{self._who}: ")):
                    self._toast(each)  # what one has just asked for oneself is no news
        self._is_first_look = False
        self._offer_layout()

    def _offer_layout(self) -> None:
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

    def on_past_read(self, message: PastRead) -> None:
        self.trails.fill(message.past, message.at)

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

    def mark(self, names: frozenset[str]) -> None:
        """Make these the instances that an action is for."""
        self._show(replace(self.view, marked=names))

    def _show(self, view: View) -> None:
        self.view = view
        self.board.present(view)
        for screen in self.screen_stack:
            if isinstance(screen, Page):
                screen.present(view)

    def part(self, words: str) -> None:
        self.parting = words

    # The terminal's mouse and clipboard

    def do_mouse(self) -> None:
        """Give the mouse to the terminal, for its own selection, or take it back."""
        wanted = not self.view.mouse
        switch = getattr(
            self._driver, "_enable_mouse_support" if wanted else "_disable_mouse_support", None
        )
        if switch is not None:
            switch()
            if self._driver is not None:
                self._driver.flush()
        self._show(replace(self.view, mouse=wanted))

    def copy(self, text: str, what: str) -> None:
        """To the clipboard of whoever sits at the terminal, by OSC 52."""
        if reason := self._kind.why_not_copied(text):
            self.notify(reason, title="Not copied", severity="warning", markup=False)
            return
        self.copy_to_clipboard(text)
        note = self._kind.clipboard_note or "the terminal has to allow OSC 52"
        self.notify(f"{what}; {note}", title="Copied", timeout=4, markup=False)

    # Toasts

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = True,
    ) -> None:
        """A toast; what is an error stays among the events as well."""
        if severity == "error":
            words = f"{title}: {message}" if title else message
            self._events.append(Event(self._utc(), severity, clean(words), "panel"))
        super().notify(message, title=title, severity=severity, timeout=timeout, markup=markup)

    def _toast(self, each: Happening) -> None:
        severity = each.severity if each.severity in ("warning", "error") else "information"
        if severity == "information" and isinstance(self.screen, Page) and self.screen.is_quiet:
            return
        timeout = {"error": 10.0, "information": 3.0}.get(severity)
        # Past our own notify: it is among the events already.
        super().notify(
            clean(each.text),
            severity=severity,  # type: ignore[arg-type]  # one of the three
            timeout=timeout,
            markup=False,
        )

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """A bug in background work: shown once, and the panel stays."""
        if event.state is not WorkerState.ERROR:
            return
        words = f"{type(event.worker.error).__name__}: {event.worker.error}"
        if words not in self._faults:
            self._faults.add(words)
            title = f"A fault in the panel ({event.worker.group})"
            self.notify(clean(words), title=title, severity="error", timeout=20, markup=False)

    def key_r(self) -> None:
        """Only where `r` is nobody's key: there a hand that has learnt it looks for Restart."""
        if not self.screen.is_modal:
            key = shown(keys_of("restart", BY_ID["restart"].key, self.view.keys)[0])
            self.notify(f"It is {key}, apart from the harmless keys", title="Restart")

    # The palette

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        page = screen if isinstance(screen, Page) else None
        act = page.action_do if page else self.board.action_do
        for title, does, action_id in commands(self.view, page.actions if page else ()):
            yield SystemCommand(title, does, partial(act, action_id))
        other = turned(self._palette.scheme)
        if other is not None:
            does = "The other theme; `theme` in config.toml keeps it"
            yield SystemCommand(
                f"{other.name.capitalize()} colours", does, partial(self.wear, other)
            )

    def wear(self, scheme: Scheme) -> None:
        """Change the colours."""
        self._palette.wear(scheme)
        self.register_theme(scheme.theme)
        self.theme = scheme.theme.name
        for screen in self.screen_stack:
            for widget in screen.walk_children():
                widget.refresh()
