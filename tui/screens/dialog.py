"""The frame that all dialogs share: a title, lines that scroll, and the keys that work."""

from collections.abc import Sequence
from typing import ClassVar, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen

from tui.present.glyphs import Glyphs
from tui.present.ink import Line, Span
from tui.widgets.lines import Lines
from tui.widgets.palette import Palette

Answer = TypeVar("Answer")
WIDEST = 92


class Dialog(ModalScreen[Answer]):
    """A framed box in the middle of the screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll(-1)", show=False),
        Binding("down,j", "scroll(1)", show=False),
        Binding("pageup", "scroll(-10)", show=False),
        Binding("pagedown,space", "scroll(10)", show=False),
    ]

    def __init__(self, title: str, palette: Palette, glyphs: Glyphs) -> None:
        super().__init__()
        self.heading = title
        self.palette = palette
        self.glyphs = glyphs

    def compose(self) -> ComposeResult:
        with Vertical(id="box") as box:
            box.border_title = Content(self.heading)
            with VerticalScroll(id="scroll", can_focus=False):
                yield Lines(self.palette, id="body")
            yield Lines(self.palette, id="hints")

    def on_mount(self) -> None:
        self.draw()

    def on_resize(self) -> None:
        self.draw()

    def draw(self) -> None:
        """Ask for body and hints again."""
        self.query_one("#body", Lines).show(self.body(self.text_width))
        self.query_one("#hints", Lines).show((hint_line(self.hints()),))

    @property
    def text_width(self) -> int:
        """Cells for text inside the frame."""
        return max(16, min(WIDEST, self.app.size.width - 4) - 6)

    def body(self, width: int) -> Sequence[Line]:
        """The dialog's lines."""
        raise NotImplementedError

    def hints(self) -> Sequence[tuple[str, str]]:
        """Keys and what they do here."""
        raise NotImplementedError

    def action_scroll(self, by: int) -> None:
        self.query_one("#scroll", VerticalScroll).scroll_relative(y=by, animate=False)


def hint_line(hints: Sequence[tuple[str, str]]) -> Line:
    """`enter apply   esc drop`."""
    spans = []
    for key, words in hints:
        spans += [Span(key, "key"), Span(f" {words}   ", "muted")]
    return tuple(spans)
