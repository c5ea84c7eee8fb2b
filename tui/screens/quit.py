"""Asks once more before the panel closes, and says what keeps running."""

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType

from tui.present.farewell import keeps_running
from tui.present.glyphs import Glyphs
from tui.present.ink import Line, Span
from tui.present.text import clean
from tui.present.units import count
from tui.screens.dialog import Dialog
from tui.view import View
from tui.widgets.palette import Palette


class QuitScreen(Dialog[bool]):
    """True closes the panel."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,enter", "answer(True)", show=False),
        Binding("escape,n", "answer(False)", show=False),
    ]

    def __init__(self, view: View, palette: Palette, glyphs: Glyphs) -> None:
        super().__init__("Close the panel", palette, glyphs)
        self.view = view

    def body(self, width: int) -> Sequence[Line]:
        alive = keeps_running(self.view.snapshot)
        if not alive:
            return [(Span("No engine is running.", "text"),)]
        verb = "keeps" if len(alive) == 1 else "keep"
        lines: list[Line] = [(Span(f"{count(len(alive), 'engine')} {verb} running:", "text"),)]
        for each in alive[:10]:
            mark = self.glyphs.marks.get(each.state.value, "?")
            lines.append(
                (
                    Span(f"  {mark} {each.state.value:<9} ", f"state:{each.state.value}"),
                    Span(clean(each.name), "name"),
                    Span(f"  {clean(each.url or '')}", "muted"),
                )
            )
        if len(alive) > 10:
            lines.append((Span(f"  and {len(alive) - 10} more", "muted"),))
        if self.view.snapshot and self.view.snapshot.load:
            lines.append((Span("The load generator runs on, too: b ends it.", "warning"),))
        return lines

    def hints(self) -> Sequence[tuple[str, str]]:
        return (("q", "close"), ("enter", "close"), ("esc", "stay"))

    def action_answer(self, answer: bool) -> None:  # noqa: FBT001  given by the binding
        self.dismiss(answer)
