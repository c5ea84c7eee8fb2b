"""Save: a name or a path, what would change in that file, and nothing written before Enter."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input
from textual.worker import Worker

from engine.control import HeldLayout
from engine.core.errors import ControlError
from engine.core.topology import Machine
from engine.layout_files import Saving, saving, write
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span
from tui.present.layout_list import shortened
from tui.present.saving_text import saving_lines
from tui.present.text import clean, wrapped
from tui.screens.dialog import WIDEST, hint_line
from tui.widgets.lines import Lines
from tui.widgets.palette import Palette


class SaveScreen(ModalScreen[Path]):
    """Looks at the file as its name is typed; writes just what it shows, and returns its path."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", show=False),
        Binding("up", "scroll(-1)", show=False),
        Binding("down", "scroll(1)", show=False),
        Binding("pageup", "scroll(-10)", show=False),
        Binding("pagedown", "scroll(10)", show=False),
    ]

    def __init__(
        self,
        held: HeldLayout,
        machine: Machine,
        path: str,
        folder: Path | None,
        palette: Palette,
        glyphs: Glyphs,
    ) -> None:
        """`path`: what stands there at first; `folder`: where names lead to."""
        super().__init__()
        self.folder = folder
        self.held = held
        self.machine = machine
        self.path = path
        self.palette = palette
        self.glyphs = glyphs
        self.seen: Saving | ControlError | None = None
        """What would be written to the path that stands there; None while that is being found."""
        self._asked: Saving | None = None
        """Another layout, about which it was asked whether it shall be replaced."""
        self._work: Worker[None] | None = None
        self._writing = False

    def compose(self) -> ComposeResult:
        with Vertical(id="box") as box:
            box.border_title = Content(
                "Save layout: a name, or a path" if self.folder else "Save layout"
            )
            path = Input(self.path, id="path", select_on_focus=False)
            path.cursor_blink = False
            yield path
            with VerticalScroll(id="scroll", can_focus=False):
                yield Lines(self.palette, id="body")
            yield Lines(self.palette, id="hints")

    def on_mount(self) -> None:
        self._look()

    def on_resize(self) -> None:
        self.draw()

    def draw(self) -> None:
        """Show what would be written, and the keys that work."""
        if not self.is_attached:
            return
        body: Sequence[Line]
        width = max(16, min(WIDEST, self.app.size.width - 4) - 6)
        match self.seen:
            case None:
                body = [(Span(spelled("looking…", self.glyphs), "muted"),)]
            case ControlError() as error:
                words = f"{error.what}: {error.why}. {error.do}"
                parts = wrapped(spelled(clean(words), self.glyphs), width)
                body = [(Span(part, "error"),) for part in parts]
            case made:
                body = saving_lines(made, width, self.glyphs)
                if not self.path.endswith(made.path.name):
                    where = f"to {clean(shortened(made.path))}"
                    body = [(Span(part, "label"),) for part in wrapped(where, width)] + body
                if made is self._asked:
                    words = f"{clean(made.path.name)} is there already. Enter replaces it."
                    body = [(Span(part, "error"),) for part in wrapped(words, width)] + body
        self.query_one("#body", Lines).show(body)
        self.query_one("#hints", Lines).show((hint_line(self._hints()),))

    def _hints(self) -> tuple[tuple[str, str], ...]:
        leave = ("esc", "cancel")
        if not isinstance(self.seen, Saving):
            return (leave,)
        if self.seen.after == self.seen.before:
            return (("enter", "close"), leave)
        if self.seen is self._asked:
            return (("enter", "replace it"), ("pgup/pgdn", "scroll"), leave)
        return (("enter", "write"), ("pgup/pgdn", "scroll"), leave)

    def on_input_changed(self, event: Input.Changed) -> None:
        self.path = event.value
        self._look()

    def _look(self) -> None:
        if self._writing:
            return
        if self._work:
            self._work.cancel()
        self.seen = None
        self.draw()
        self._work = self.app.run_worker(self._find(self.path), group="save", exit_on_error=False)

    async def _find(self, path: str) -> None:
        found: Saving | ControlError
        try:
            # In a thread: the file may lie on a disk far away.
            found = await asyncio.to_thread(saving, path, self.held, self.machine, own=self.folder)
        except ControlError as error:
            found = error
        if path == self.path:
            self.seen = found
            self.draw()

    def on_input_submitted(self) -> None:
        match self.seen:
            case ControlError() as error:
                self._tell(error)
            case Saving() as made if made.after == made.before:
                self.dismiss(made.path)
            case Saving() as made if not made.is_own and made is not self._asked:
                self._asked = made
                self.query_one("#scroll", VerticalScroll).scroll_home(animate=False)
                self.draw()
            case Saving() as made if not self._writing:
                self._writing = True
                self._work = self.app.run_worker(
                    self._write(made), group="save", exit_on_error=False
                )
            case _:
                self.app.bell()  # nothing is written that was not shown

    async def _write(self, made: Saving) -> None:
        try:
            await asyncio.to_thread(write, made)
        except ControlError as error:
            self._tell(error)
        else:
            self.app.notify(clean(str(made.path)), title="Saved", markup=False)
            self.dismiss(made.path)
            return
        finally:
            self._writing = False
        self._look()

    def _tell(self, error: ControlError) -> None:
        words = f"{clean(error.why)}. {clean(error.do)}"
        self.app.notify(words, title=clean(error.what), severity="error", markup=False)

    def action_scroll(self, by: int) -> None:
        self.query_one("#scroll", VerticalScroll).scroll_relative(y=by, animate=False)

    def action_close(self) -> None:
        if not self._writing:
            self.dismiss(None)
