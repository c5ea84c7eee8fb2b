"""A/B: what a comparison will do, how it goes, its verdict, and what is kept of it."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget

from engine.ab_process import Comparison
from engine.core.comparing import telling
from engine.core.errors import ControlError
from tui.actions import BY_ID, Action
from tui.desk import Desk
from tui.page_actions import AB_START, BACK, PAGES
from tui.present.ab_state import AT_WORK, AbState, Phase, after, begun
from tui.present.ab_text import ab_lines, how_it_stands, parting
from tui.present.ab_wish import AbWish
from tui.present.text import clean
from tui.screens.page import Page, page_bindings
from tui.widgets.lines import Lines

ARMS = 3
"""At most."""


class AbScreen(Page):
    """The comparison is a process of its own; this shows what it tells, and says what to do."""

    PAGE = "ab"
    AUTO_FOCUS = "#scroll"
    BINDINGS: ClassVar[list[BindingType]] = [
        *page_bindings("ab"),
        Binding(AB_START.key, f"do('{AB_START.id}')", show=False),
        Binding("ctrl+c", f"do('{BACK.id}')", show=False),
        *(Binding(str(at + 1), f"keep({at})", show=False) for at in range(ARMS)),
    ]

    def __init__(self, desk: Desk, wish: AbWish) -> None:
        super().__init__(desk)
        self.wish = wish
        self.state = AbState()
        self._run: Comparison | None = None

    @property
    def crumbs(self) -> tuple[str, ...]:
        return ("A/B", self.wish.title)

    @property
    def is_quiet(self) -> bool:
        """It starts and stops engines all the time."""
        return self.state.phase in AT_WORK

    @property
    def actions(self) -> tuple[Action, ...]:
        """What makes sense in this phase comes first, so that a narrow footer has it."""
        own = (AB_START, *PAGES["ab"].own)
        told = [replace(each, why_not=self._why_not(each.id)) for each in own]
        first = [each for each in told if each.why_not(self.desk.view()) is None]
        rest = [each for each in told if each not in first]
        shared = [BY_ID[name] for name in PAGES["ab"].shared]
        label = "End" if self.state.phase in (Phase.RUNNING, Phase.DECIDING) else BACK.label
        back = replace(BACK, label=label, does="Close this; what runs is ended only when asked")
        return (back, *first, *shared, *rest)

    def body(self) -> Iterable[Widget]:
        with VerticalScroll(id="scroll", classes="frame") as scroll:
            scroll.can_focus = True
            yield Lines(self.desk.palette, id="words")

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(1.0, self.draw)
        self._plan(self.wish)

    def on_unmount(self) -> None:
        if self._run and self.state.phase not in AT_WORK:
            self._run.say(telling.STOP)

    def show(self) -> None:
        words = self.query_one("#words", Lines)
        now, glyphs = self.desk.clock(), self.desk.glyphs
        words.show(ab_lines(self.state, words.size.width, now, glyphs))
        scroll = self.query_one("#scroll")
        scroll.border_title = Content(clean(self.wish.title))
        scroll.border_subtitle = self._hint()

    def _hint(self) -> str:
        match self.state.phase:
            case Phase.OFFERED:
                return "enter starts it; nothing stops before"
            case Phase.RUNNING:
                return "esc: end it, and put back what ran"
            case Phase.DECIDING:
                return "w keeps the winner, r rolls back"
            case _:
                return ""

    # The comparison

    def _plan(self, wish: AbWish) -> None:
        """Start one that tells what it would do; one that only told so ends."""
        if self._run:
            self._run.say(telling.STOP)
        self.wish, self.state, self._run = wish, AbState(), None
        compare = self.desk.compare
        try:
            if compare is None:
                raise ControlError(
                    what="No comparison is possible here",
                    why="this panel was opened without the program that makes them",
                    do="Use `slotdeck ab`",
                )
            self._run = compare(wish.command)
        except ControlError as error:
            self._take(telling.Failed(error.what, error.why, error.do))
            return
        # The app's: it goes on reading when this screen is closed while something is put back.
        self.app.run_worker(self._follow(self._run), group="ab", exit_on_error=False)
        self.draw()

    async def _follow(self, run: Comparison) -> None:
        async for told in run.told():
            if run is self._run:
                self._take(told)

    def _take(self, told: telling.Told) -> None:
        self.state = after(self.state, told, self.desk.clock())
        self.desk.part(parting(self.state))
        if self.is_attached:
            self.draw()
        elif self.state.phase is Phase.OVER:
            self._tell_end()

    def _tell_end(self) -> None:
        if it := self.state.failed:
            words, title = clean(f"{it.why}. {it.do}"), clean(it.what)
            self.app.notify(words, title=title, severity="error", markup=False)
        else:
            self.app.notify(how_it_stands(self.state), title="A/B", markup=False)

    # Actions

    def _why_not(self, action: str) -> Callable[[object], str | None]:
        reason = why_not(self.state, action)
        return lambda _: reason

    def action_do(self, action_id: str) -> None:
        """Nothing else of the panel may change what is being compared."""
        busy = self.state.phase in (Phase.RUNNING, Phase.DECIDING)
        if reason := why_not(self.state, action_id):
            self.app.notify(reason, title="A/B", severity="warning", markup=False)
        elif busy and action_id in BY_ID and action_id not in PAGES["ab"].shared:
            words = "a comparison runs; end it first (esc)"
            label = BY_ID[action_id].label
            self.app.notify(words, title=label, severity="warning", markup=False)
        else:
            super().action_do(action_id)

    def do_ab_start(self) -> None:
        if self._run:
            self.state = begun(self.state, self.desk.clock())
            self.desk.part(parting(self.state))
            self._run.say(telling.START)
            self.draw()

    def do_ab_keep(self) -> None:
        if self.state.deciding and self.state.deciding.winner:
            self._decide(f"{telling.KEEP} {self.state.deciding.winner}")

    def do_ab_back(self) -> None:
        self._decide(telling.BACK)

    def action_keep(self, at: int) -> None:
        """That arm, winner or not."""
        arms = self.state.planned.arms if self.state.planned else ()
        if self.state.phase is Phase.DECIDING and at < len(arms):
            self._decide(f"{telling.KEEP} {arms[at].name}")

    def _decide(self, order: str) -> None:
        if self._run and self.state.phase is Phase.DECIDING:
            self._run.say(order)

    def do_ab_streams(self) -> None:
        self._plan(self.wish.other("streams"))

    def do_ab_pairs(self) -> None:
        self._plan(self.wish.other("pairs"))

    def do_ab_time(self) -> None:
        self._plan(self.wish.other("minutes"))

    def do_copy(self) -> None:
        self.copy_lines(self.query_one("#words", Lines).lines, "what is shown")

    def do_back(self) -> None:
        if self.state.phase not in (Phase.RUNNING, Phase.DECIDING):
            self.app.pop_screen()
        elif not self.state.stopping:
            self._ask(self._end)

    def do_quit(self) -> None:
        if self.state.phase in (Phase.RUNNING, Phase.DECIDING):
            self._ask(self.app.exit)
        else:
            self.desk.act("quit")

    def _ask(self, then: Callable[[], None]) -> None:
        from tui.screens.ab_leave import AbLeaveScreen

        def answered(end: bool | None, /) -> None:  # noqa: FBT001  Textual calls it
            if end:
                then()

        self.app.push_screen(
            AbLeaveScreen(self.state, self.desk.palette, self.desk.glyphs), answered
        )

    def _end(self) -> None:
        if self._run and self.state.phase in (Phase.RUNNING, Phase.DECIDING):
            self.state = replace(self.state, stopping=True)
            self._run.say(telling.STOP)
            self.draw()


def why_not(state: AbState, action: str) -> str | None:
    """Why this does not work in this phase; None where it does."""
    phase = state.phase
    match action:
        case "ab_start" if phase is Phase.PLANNING:
            return "it is still finding out what it would do"
        case "ab_start" if phase is Phase.OVER:
            return "it is over; open it again for another one"
        case "ab_start" if phase is not Phase.OFFERED:
            return "it runs already"
        case "ab_streams" | "ab_pairs" | "ab_time" if phase not in (
            Phase.PLANNING,
            Phase.OFFERED,
        ):
            return "it has begun: what it asks is fixed before it looks"
        case "ab_keep" | "ab_back" if phase is Phase.OVER:
            return "it is over"
        case "ab_keep" | "ab_back" if phase is Phase.SETTLING:
            return "that is decided already"
        case "ab_keep" | "ab_back" if phase is not Phase.DECIDING:
            return "nothing is measured yet"
        case "ab_keep" if state.deciding and state.deciding.winner is None:
            return f"there is no winner: {state.deciding.why}"
        case _:
            return None
