"""Try: one question to one instance, its answer as it comes, and what was measured."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static
from textual.worker import Worker

from engine.control import AnswerEnd, Control
from engine.core.errors import ControlError
from tui.present.answer import measured, progress
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Span
from tui.present.text import clean, clean_lines, wrapped
from tui.screens.dialog import hint_line
from tui.widgets.lines import Lines
from tui.widgets.palette import Palette

FIRST_QUESTION = "In one sentence: what is a NUMA node?"
MOST_TOKENS = 128


class TryScreen(ModalScreen[None]):
    """Escape closes it and aborts the answer."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", show=False),
        Binding("pageup", "scroll(-5)", show=False),
        Binding("pagedown", "scroll(5)", show=False),
    ]

    def __init__(self, control: Control, name: str, palette: Palette, glyphs: Glyphs) -> None:
        super().__init__()
        self.control = control
        self.instance = name
        self.palette = palette
        self.glyphs = glyphs
        self.answer = ""
        self._shown = ""
        self._asking: Worker[None] | None = None

    def compose(self) -> ComposeResult:
        with Vertical(id="box") as box:
            box.border_title = Content(f"Try {clean(self.instance)}")
            question = Input(FIRST_QUESTION, id="question", select_on_focus=False)
            question.cursor_blink = False
            yield question
            with VerticalScroll(id="scroll", can_focus=False):
                yield Static("", id="answer", markup=False)
            yield Lines(self.palette, id="measured")
            yield Lines(self.palette, id="hints")

    def on_mount(self) -> None:
        hints = (("enter", "send"), ("pgup/pgdn", "scroll"), ("esc", "close and abort"))
        self.query_one("#hints", Lines).show((hint_line(hints),))
        self._say("measured at the service's socket, this one request", "faint")
        # Pieces come faster than a terminal needs them.
        self.set_interval(0.1, self._flush)

    def on_unmount(self) -> None:
        if self._asking:
            self._asking.cancel()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        prompt = event.value.strip()
        if not prompt:
            self._say("type a question first", "warning")
            return
        if self._asking:
            self._asking.cancel()
        self.answer = ""
        self._say("waiting for the first token…", "muted")
        self._asking = self.app.run_worker(self._ask(prompt), group="try", exit_on_error=False)

    async def _ask(self, prompt: str) -> None:
        stream = self.control.ask(self.instance, prompt, max_tokens=MOST_TOKENS)
        try:
            async for piece in stream:
                if isinstance(piece, AnswerEnd):
                    self._say(measured(piece), "accent")
                    break
                self.answer += piece.text
                self._say(progress(piece.tokens, piece.at_ms), "muted")
        except ControlError as error:
            self._say(f"{error.what}: {error.why}. {error.do}", "error")
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()
            self._flush()

    def _flush(self) -> None:
        if self.answer == self._shown or not self.is_attached:
            return
        self._shown = self.answer
        self.query_one("#answer", Static).update(spelled(clean_lines(self.answer), self.glyphs))
        self.query_one("#scroll", VerticalScroll).scroll_end(animate=False)

    def _say(self, words: str, ink: str) -> None:
        if self.is_attached:
            measured_line = self.query_one("#measured", Lines)
            parts = wrapped(spelled(words, self.glyphs), measured_line.size.width)
            measured_line.show([(Span(part, ink),) for part in parts[:4]])

    def action_scroll(self, by: int) -> None:
        self.query_one("#scroll", VerticalScroll).scroll_relative(y=by, animate=False)

    def action_close(self) -> None:
        self.dismiss(None)
