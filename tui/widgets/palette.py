"""Inks and glows as colours: the only place that knows them."""

from collections.abc import Iterable

from rich.segment import Segment
from rich.style import Style
from textual.content import Content
from textual.strip import Strip
from textual.theme import Theme

from tui.present.ink import Span

THEME = Theme(
    name="slotdeck",
    primary="#7aa2f7",
    secondary="#7dcfff",
    accent="#7dcfff",
    success="#9ece6a",
    warning="#e0af68",
    error="#f7768e",
    foreground="#c8d0e8",
    background="#14161f",
    surface="#191c27",
    panel="#232839",
    dark=True,
    variables={"border": "#3b4261", "footer-key-foreground": "#7dcfff"},
)
HEAT = ("#39415c", "#33617a", "#2f8087", "#4a9f78", "#8aae5f", "#c6ab56", "#dc8d4f", "#e8685a")
OWNERS = (
    "#7aa2f7",
    "#9ece6a",
    "#e0af68",
    "#bb9af7",
    "#7dcfff",
    "#f7768e",
    "#73daca",
    "#ff9e64",
)
STATES = {
    "starting": "#7dcfff",
    "ready": "#9ece6a",
    "stopping": "#e0af68",
    "stopped": "#7a83a8",
    "backoff": "#ff9e64",
    "failed": "#f7768e",
}
INKS = {
    "text": "#b4bddb",
    "number": "#c8d0e8",
    "name": "bold #dfe5f7",
    "label": "#8f99bf",
    "muted": "#7f89b0",
    "faint": "#535b7c",
    "head": "#7f89b0",
    "title": "bold #b4bddb",
    "package": "#8f99bf",
    "brand": "bold #14161f on #7aa2f7",
    "edge": "#3b4261",
    "edge:cursor": "#7aa2f7",
    "edge:good": "#9ece6a",
    "edge:bad": "#f7768e",
    "edge:maybe": "#e0af68",
    "track": "#2b3046",
    "gpu": "#a99be0",
    "several": "bold #f7768e",
    "barred": "#6b5470",
    "pointer": "#7aa2f7",
    "good": "#9ece6a",
    "warning": "#e0af68",
    "error": "bold #f7768e",
    "accent": "#7dcfff",
    "key": "bold #7dcfff",
    "key:danger": "bold #f7768e",
}
GLOWS = {
    "cursor": "on #2e3a5e",
    "good": "on #2f4a34",
    "bad": "on #552b38",
    "maybe": "on #4a4030",
    "row": "on #232839",
    "row:focus": "on #2b3554",
}


class Palette:
    """Turns spans into strips; remembers the styles it has made."""

    def __init__(self) -> None:
        self._styles: dict[tuple[str, str], Style] = {}

    def style(self, ink: str, glow: str = "") -> Style:
        """The colour of an ink on what glows behind it."""
        key = (ink, glow)
        if key not in self._styles:
            style = Style.parse(_definition(ink))
            if glow:
                style += Style.parse(GLOWS.get(glow, ""))
            self._styles[key] = style
        return self._styles[key]

    def content(self, line: Iterable[Span]) -> Content:
        """The line for a border's title: never read as markup."""
        return Content.assemble(
            *(Content.styled(span.text, _definition(span.ink)) for span in line)
        )

    def strip(self, line: Iterable[Span], width: int, base: Style, glow: str = "") -> Strip:
        """The line in exactly `width` cells on the widget's own background."""
        segments = [Segment(span.text, self.style(span.ink, span.glow or glow)) for span in line]
        if glow:
            base += self.style("", glow)
        strip = Strip(segments).adjust_cell_length(width, base)
        return strip.apply_style(base)


def _definition(ink: str) -> str:
    kind, _, rest = ink.partition(":")
    if kind == "heat":
        upper, _, lower = rest.partition(":")
        return HEAT[int(upper)] + (f" on {HEAT[int(lower)]}" if lower else "")
    if kind == "owner":
        colour = OWNERS[int(rest.rstrip("!")) % len(OWNERS)]
        return f"bold {colour} on #2b3554" if rest.endswith("!") else colour
    if kind == "state":
        return STATES.get(rest, INKS["text"])
    return INKS.get(ink, "")
