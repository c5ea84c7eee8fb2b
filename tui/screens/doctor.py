"""What is wrong with the machine that the service is on: each finding with why and what to do."""

from typing import ClassVar

from textual.binding import BindingType
from textual.content import Content
from textual.worker import Worker

from engine.core.checks import GRAVEST_FIRST, Check, counted
from engine.core.errors import ControlError
from tui.desk import Desk
from tui.present.doctor_text import LEAST, chosen_checks, doctor_lines
from tui.present.ink import Line, Span
from tui.present.text import clean, wrapped
from tui.screens.lines_page import LinesPage
from tui.screens.page import page_bindings
from tui.widgets.lines import Lines


class DoctorScreen(LinesPage):
    """The gravest first."""

    PAGE = "doctor"
    DEGREES = GRAVEST_FIRST
    COPIED = "the findings"
    BINDINGS: ClassVar[list[BindingType]] = page_bindings("doctor")

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, least=GRAVEST_FIRST[-1])
        self.found: tuple[Check, ...] | ControlError | None = None
        self._looking: Worker[None] | None = None

    def on_mount(self) -> None:
        super().on_mount()
        self.do_again()

    def on_unmount(self) -> None:
        if self._looking:
            self._looking.cancel()

    def show(self) -> None:
        lines = self.query_one("#lines", Lines)
        lines.show(self._lines(lines.size.width))
        title = "looking" if self._is_looking else "doctor"
        if isinstance(self.found, tuple):
            title += f": {counted(self.found) or 'nothing was checked'}"
        scroll = self.query_one("#scroll")
        scroll.border_title, scroll.border_subtitle = Content(title), LEAST[self.least]

    @property
    def _is_looking(self) -> bool:
        return self._looking is not None and not self._looking.is_finished

    def _lines(self, width: int) -> list[Line]:
        match self.found:
            case None:
                where = clean(self.desk.view().host) or "this machine"
                return [(Span(f" having {where} checked…", "muted"),)]
            case ControlError() as error:
                words = clean(f"{error.what}: {error.why}. {error.do}")
                return [(Span(part, "error"),) for part in wrapped(words, width)]
            case found:
                shown = chosen_checks(found, words=self.words, least=self.least)
                return doctor_lines(shown, width, self.desk.glyphs)

    # Actions

    def do_again(self) -> None:
        if self._is_looking:
            return
        self._looking = self.app.run_worker(self._look, group="doctor", exit_on_error=False)
        self.draw()

    async def _look(self) -> None:
        try:
            self.found = await self.desk.checkup()
        except ControlError as error:
            self.found = error
        self.call_later(self.draw)
