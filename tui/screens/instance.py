"""One instance: its figures over time, its log, how it was started, and whether it is as asked."""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.worker import Worker

from engine.control import CommandLine, Verified
from engine.core.errors import ControlError
from engine.core.status import State
from tui.desk import Desk
from tui.log_reader import LogReader
from tui.messages import FilterChanged, FilterEntered
from tui.present.badges import badges
from tui.present.checks_text import checks_lines
from tui.present.command_text import command_lines
from tui.present.details import long_details, short_details
from tui.present.ink import Line, Span
from tui.present.plot import history_lines, plot_lines
from tui.present.text import clean, wrapped
from tui.screens.page import Page, page_bindings
from tui.trails import metrics_of, why_unknown
from tui.view import Connection, View
from tui.widgets.filter_line import FilterLine
from tui.widgets.lines import Lines
from tui.widgets.log_pane import LogPane
from tui.widgets.tabs import Tabs

TABS = ("history", "log", "command", "checks")
STEPS_S = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds of one column of a plot."""
LOWEST_PLOT, HIGHEST_PLOT = 4, 10


class InstanceScreen(Page):
    """Follows one instance, also while another one is selected on the board."""

    PAGE = "instance"
    AUTO_FOCUS = "#scroll"
    BINDINGS: ClassVar[list[BindingType]] = [
        *page_bindings("instance"),
        Binding("tab,right", "tab(1)", show=False, priority=True),
        Binding("shift+tab,left", "tab(-1)", show=False, priority=True),
        *(Binding(str(at), f"choose('{name}')", show=False) for at, name in enumerate(TABS, 1)),
        Binding("plus", "zoom(-1)", show=False),
        Binding("minus", "zoom(1)", show=False),
    ]

    def __init__(self, desk: Desk, name: str) -> None:
        super().__init__(desk)
        self.instance = name
        self.told: CommandLine | ControlError | None = None
        self.found: Verified | ControlError | None = None
        self._step = 0
        self._asking: Worker[None] | None = None
        self._reader = LogReader(
            lambda: self.app,
            lambda: self.query_one(LogPane),
            desk.control,
            lambda: self.is_current and desk.view().connection is not Connection.GONE,
        )

    @property
    def crumbs(self) -> tuple[str, ...]:
        return ("instances", self.instance)

    def body(self) -> Iterable[Widget]:
        palette = self.desk.palette
        yield Lines(palette, id="details")
        yield Tabs(palette, TABS, id="tabs")
        with Container(id="lower"):
            yield Lines(palette, id="history")
            yield LogPane(id="log")
            with VerticalScroll(id="scroll", classes="frame") as scroll:
                scroll.can_focus = True
                yield Lines(palette, id="words")
        yield FilterLine(palette, self.desk.glyphs, hint="search the log", id="filter")

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#history").border_title = "history"
        self._reader.follow(self.instance)
        self._choose()

    def on_unmount(self) -> None:
        self._reader.stop()
        if self._asking:
            self._asking.cancel()

    # Showing

    def _choose(self) -> None:
        """Show what the tab is for; in a wide terminal the history stays beside it."""
        tab = self.query_one(Tabs).chosen
        for name in TABS:
            self.set_class(name == tab, f"-on-{name}")
        if self.query_one(FilterLine).has_focus:
            pass  # its words are being typed
        elif tab == "log":
            self.query_one(LogPane).focus()
        else:
            self.query_one("#scroll").focus()
        if tab == "command" and not isinstance(self.told, CommandLine):
            self._ask(self._ask_command)
        if tab == "checks":
            self._ask(self._ask_checks)
        self.call_after_refresh(self.draw)

    def present(self, view: View) -> None:
        if view.named(self.instance) is None:
            self.app.pop_screen()
            self.app.notify(
                f"{clean(self.instance)} has left the list", title="Details", markup=False
            )
            return
        self.draw()

    def show(self) -> None:
        view, glyphs = self.desk.view(), self.desk.glyphs
        each = view.named(self.instance)
        badge = badges(one.name for one in view.instances).get(self.instance)
        details = self.query_one("#details", Lines)
        details.show(short_details(each, badge, details.size.width, glyphs))
        self._draw_history(view)
        words = self.query_one("#words", Lines)
        width = words.size.width
        match self.query_one(Tabs).chosen:
            case "command":
                lines = self._told_lines(self.told, width)
            case "checks" if each is not None:
                found = self.found
                lines = (
                    self._error_lines(found, width)
                    if isinstance(found, ControlError)
                    else checks_lines(each, found, width, glyphs)
                )
            case _:
                lines = long_details(each, badge, width, glyphs)
        words.show(lines)
        title = "details" if self.has_class("-on-history") else self.query_one(Tabs).chosen
        self.query_one("#scroll").border_title = Content(title)

    def _draw_history(self, view: View) -> None:
        history = self.query_one("#history", Lines)
        width, height = history.size.width, history.size.height
        if not (history.display and width and height):
            return
        status = view.named(self.instance)
        metrics = metrics_of(status)
        height = min(height, len(metrics) * HIGHEST_PLOT)
        per_row = 1 if height >= len(metrics) * LOWEST_PLOT + 4 and width < 100 else 2
        rows = -(-len(metrics) // per_row)
        each_width = (width - 2 * (per_row - 1)) // per_row
        step_s = STEPS_S[self._step]
        plots = []
        for metric in metrics:
            values = self.desk.trails.series(
                self.instance, metric, now=self.desk.clock(), step_s=step_s, steps=each_width
            )
            why = why_unknown(status, metric) if status else ""
            plots.append(
                plot_lines(
                    metric,
                    values,
                    height // rows,
                    self.desk.glyphs,
                    seconds=step_s * each_width,
                    why_unknown=clean(why),
                )
            )
        history.show(history_lines(plots, [each_width] * per_row, per_row))

    def _told_lines(self, told: CommandLine | ControlError | None, width: int) -> list[Line]:
        match told:
            case None:
                return [(Span("asking the service…", "muted"),)]
            case ControlError():
                return self._error_lines(told, width)
            case _:
                return command_lines(told, width, self.desk.glyphs)

    def _error_lines(self, error: ControlError, width: int) -> list[Line]:
        words = f"{error.what}: {error.why}. {error.do}"
        return [(Span(part, "error"),) for part in wrapped(clean(words), width)]

    # Asking

    def _ask(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._asking:
            self._asking.cancel()
        self._asking = self.app.run_worker(work, group="details", exit_on_error=False)

    async def _ask_command(self) -> None:
        try:
            self.told = await self.desk.control().command(self.instance)
        except ControlError as error:
            self.told = error
        self.draw()

    async def _ask_checks(self) -> None:
        self.found = None
        self.draw()
        each = self.desk.view().named(self.instance)
        try:
            if each is None or each.state is not State.READY:
                self.found = Verified(self.instance, verified=False)
            else:
                (self.found,) = (await self.desk.control().verify((self.instance,))).instances
        except ControlError as error:
            self.found = error
        self.draw()

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        if self.query_one(Tabs).chosen == "checks":
            self._ask(self._ask_checks)  # a repair may have lain upon this

    # Actions

    def action_tab(self, by: int) -> None:
        self.query_one(Tabs).step(by)

    def action_choose(self, name: str) -> None:
        self.query_one(Tabs).choose(name)

    def on_tabs_chosen(self, _: Tabs.Chosen) -> None:
        self._choose()

    def action_zoom(self, by: int) -> None:
        self._step = max(0, min(len(STEPS_S) - 1, self._step + by))
        self.draw()

    def do_again(self) -> None:
        self.told = None
        self.query_one(Tabs).choose("checks")
        self._ask(self._ask_checks)

    def do_filter(self) -> None:
        self.query_one(Tabs).choose("log")
        super().do_filter()

    def on_filter_changed(self, message: FilterChanged) -> None:
        self.query_one(LogPane).search(message.words)

    def on_filter_entered(self, message: FilterEntered) -> None:
        self.query_one(LogPane).focus()
        self._tell_found(self.query_one(LogPane).step_found(-1))

    def do_next(self) -> None:
        self._tell_found(self.query_one(LogPane).step_found(1))

    def do_before(self) -> None:
        self._tell_found(self.query_one(LogPane).step_found(-1))

    def _tell_found(self, words: str) -> None:
        if words:
            self.app.notify(words, title="Search", severity="warning", markup=False)

    def do_copy(self) -> None:
        match self.query_one(Tabs).chosen:
            case "log":
                selected = self.get_selected_text()
                if selected:
                    self.desk.copy(selected, "what is selected")
                else:
                    self.desk.copy(*self.query_one(LogPane).copied())
            case "command" if isinstance(self.told, CommandLine):
                self.desk.copy(self.told.shell, "the command line")
            case "history":
                self.copy_lines(self.query_one("#history", Lines).lines, "the history")
            case _:
                self.copy_lines(self.query_one("#words", Lines).lines, "what is shown")
