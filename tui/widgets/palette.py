"""Inks and glows as styles, in the colours of a scheme."""

from collections.abc import Iterable

from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual.content import Content
from textual.strip import Strip
from textual.style import Style as TextualStyle

from tui.pen import Codes, codes_of
from tui.present.ink import Span
from tui.widgets.schemes import DARK, Scheme

STATES = {
    "starting": "cyan",
    "ready": "green",
    "stopping": "yellow",
    "stopped": "quiet",
    "backoff": "orange",
    "failed": "red",
}
INKS = {
    "text": "soft",
    "number": "plain",
    "name": "bold bright",
    "label": "dim",
    "muted": "muted",
    "faint": "faint",
    "head": "muted",
    "title": "bold soft",
    "package": "dim",
    "brand": "brand",
    "edge": "line",
    "edge:cursor": "blue",
    "edge:good": "green",
    "edge:bad": "red",
    "edge:maybe": "yellow",
    "track": "track",
    "gpu": "violet",
    "several": "bold red",
    "barred": "plum",
    "taken": "orange",
    "pointer": "blue",
    "good": "green",
    "warning": "yellow",
    "error": "bold red",
    "accent": "cyan",
    "key": "bold cyan",
    "key:danger": "bold red",
}
"""Each ink in hues, which a scheme gives their colours."""
GLOWS = {
    "cursor": "at:cursor",
    "good": "at:good",
    "bad": "at:bad",
    "maybe": "at:maybe",
    "row": "at:row",
    "row:focus": "at:focus",
}


class Palette:
    """Turns spans into strips; remembers the styles it has made."""

    def __init__(self, scheme: Scheme = DARK) -> None:
        self.scheme = scheme
        self._styles: dict[tuple[str, str], Style] = {}
        self._on: dict[tuple[str, str, Style], Style] = {}
        """The same upon a widget's own style."""

    def wear(self, scheme: Scheme) -> None:
        """Other colours from now on."""
        self.scheme = scheme
        self._styles.clear()
        self._on.clear()

    def style(self, ink: str, glow: str = "") -> Style:
        """The colour of an ink on what glows behind it."""
        key = (ink, glow)
        if key not in self._styles:
            style = Style.parse(_definition(ink, self.scheme))
            if glow:
                style += Style.parse(_in_hues(GLOWS.get(glow, ""), self.scheme))
            self._styles[key] = style
        return self._styles[key]

    def content(self, line: Iterable[Span]) -> Content:
        """The line for a border's title: never read as markup."""
        return Content.assemble(
            *(
                Content.styled(span.text, TextualStyle.from_rich_style(self.style(span.ink)))
                for span in line
            )
        )

    def strip(self, line: Iterable[Span], width: int, base: Style, glow: str = "") -> Strip:
        """The line in exactly `width` cells on the widget's own background."""
        if glow:
            base += self.style("", glow)
        segments = [
            Segment(span.text, self._upon(span.ink, span.glow or glow, base)) for span in line
        ]
        return Strip(segments).adjust_cell_length(width, base)

    def codes(self, ink: str, glow: str, base: Style, colours: ColorSystem) -> Codes:
        """What a terminal is told for an ink on the widget's own background."""
        return codes_of(self._upon(ink, glow, base), colours)

    def _upon(self, ink: str, glow: str, base: Style) -> Style:
        key = (ink, glow, base)
        style = self._on.get(key)
        if style is None:
            style = self._on[key] = base + self.style(ink, glow)
        return style


def _definition(ink: str, scheme: Scheme) -> str:
    kind, _, rest = ink.partition(":")
    if kind == "heat":
        upper, _, lower = rest.partition(":")
        return scheme.heat[int(upper)] + (f" on {scheme.heat[int(lower)]}" if lower else "")
    if kind == "owner":
        colour = scheme.owners[int(rest.rstrip("!")) % len(scheme.owners)]
        return f"bold {scheme.hues['at:focus']} {colour}" if rest.endswith("!") else colour
    if kind == "state":
        return _in_hues(STATES.get(rest, INKS["text"]), scheme)
    return _in_hues(INKS.get(ink, ""), scheme)


def _in_hues(words: str, scheme: Scheme) -> str:
    return " ".join(scheme.hues.get(word, word) for word in words.split())
