"""The frame that all screens beside the board share: where one is, what is shown, the keys."""

from collections.abc import Iterable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widget import Widget

from tui.actions import ACTIONS, BY_ID, Action
from tui.desk import Desk
from tui.page_actions import BACK, PAGES, PageActions
from tui.present.header import header_line
from tui.present.help_text import help_lines
from tui.present.ink import Line, plain
from tui.view import View
from tui.widgets.filter_line import FilterLine
from tui.widgets.key_bar import KeyBar
from tui.widgets.lines import Lines


def page_bindings(name: str) -> list[BindingType]:
    """The page's own keys, and those of all actions that they leave free."""
    own = PAGES[name].own
    taken = {each.key for each in own}
    actions = (*own, *(each for each in ACTIONS if each.key not in taken))
    return [
        *(Binding(each.key, f"do('{each.id}')", each.label, id=each.id) for each in actions),
        Binding(BACK.key, f"do('{BACK.id}')", show=False),
    ]


class Page(Screen[None]):
    """Shows the View; what it cannot do itself it has the board do."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (140, "-wide")]  # noqa: RUF012  declared so by Textual
    VERTICAL_BREAKPOINTS = [(0, "-tiny"), (10, "-low"), (18, "-high")]  # noqa: RUF012
    PAGE: ClassVar[str]

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk

    def compose(self) -> ComposeResult:
        yield Lines(self.desk.palette, id="header")
        yield from self.body()
        yield KeyBar(self.desk.palette, id="keys")

    def body(self) -> Iterable[Widget]:
        """What stands between header and keys."""
        raise NotImplementedError

    @property
    def crumbs(self) -> tuple[str, ...]:
        """Where one is."""
        return (self.PAGE,)

    @property
    def is_quiet(self) -> bool:
        """Whether what goes as planned shall draw no toasts over it."""
        return False

    @property
    def offered(self) -> PageActions:
        """What can be done here."""
        return PAGES[self.PAGE]

    @property
    def actions(self) -> tuple[Action, ...]:
        """The same as rows of help, footer and palette."""
        return self.offered.all

    def on_mount(self) -> None:
        self.set_interval(1.0, self._draw_header)

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    def on_lines_widened(self, _: Lines.Widened) -> None:
        self.draw()

    def on_screen_resume(self) -> None:
        self.call_after_refresh(self.draw)

    def present(self, view: View) -> None:
        """A newer view."""
        self.draw()

    def draw(self) -> None:
        """Show all anew."""
        if self.is_drawable:
            self._draw_header()
            self.query_one(KeyBar).present(self.desk.view(), actions=self.actions)
            self.show()

    @property
    def is_drawable(self) -> bool:
        """Not before its parts are there, nor once they are gone: answers come when they come."""
        return self.is_attached and bool(self.query("#keys"))

    def show(self) -> None:
        """The part between header and keys."""
        raise NotImplementedError

    def _draw_header(self) -> None:
        if not self.is_drawable:
            return
        header = self.query_one("#header", Lines)
        view, now, glyphs = self.desk.view(), self.desk.clock(), self.desk.glyphs
        header.show((header_line(view, header.size.width, now, glyphs, crumbs=self.crumbs),))

    # Actions

    def action_do(self, action_id: str) -> None:
        """Do it here, or have the board do it: in sight, where this screen does not offer it."""
        own = getattr(self, f"do_{action_id}", None)
        if own is not None:
            own()
            return
        if action_id in BY_ID and action_id not in self.offered.shared:
            self.app.pop_screen()
        self.desk.act(action_id)

    def do_back(self) -> None:
        """Drop a filter, or close this screen."""
        for line in self.query(FilterLine):
            if line.drop():
                return
        self.app.pop_screen()

    def do_help(self) -> None:
        """The keys that work here and now."""
        from tui.screens.reading import ReadingScreen

        view, glyphs = self.desk.view(), self.desk.glyphs
        self.app.push_screen(
            ReadingScreen(
                f"Help: {self.PAGE}",
                lambda width: help_lines(view, width, glyphs, self.actions),
                self.desk.palette,
                glyphs,
            )
        )

    def do_filter(self) -> None:
        self.query_one(FilterLine).open()

    def copy_lines(self, lines: Iterable[Line], what: str) -> None:
        """The lines' text to the clipboard."""
        self.desk.copy("\n".join(plain(line).rstrip() for line in lines), what)
