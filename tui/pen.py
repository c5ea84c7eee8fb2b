"""Writes styled text with as few colour codes as do: only what differs from the cell before."""

from collections.abc import Iterable
from functools import lru_cache

from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

Codes = tuple[str, str, str]
"""Attributes, foreground, background; each empty where it is the terminal's own."""
PLAIN: Codes = ("", "", "")


class Pen:
    """What the terminal's own pen is set to, and the text so far. Ends with plain text."""

    def __init__(self, colours: ColorSystem) -> None:
        self._colours = colours
        self._set = PLAIN
        self._row: int | None = None
        self._written: list[str] = []

    def move(self, x: int, y: int) -> None:
        """Go on at this cell."""
        # To a column of the same row, never by a distance: what is how wide, terminals disagree.
        same_row = y == self._row
        self._written.append(f"\x1b[{x + 1}G" if same_row else f"\x1b[{y + 1};{x + 1}H")
        self._row = y

    def write(self, segments: Iterable[Segment]) -> None:
        """Text where the pen stands."""
        for segment in segments:
            text, style = segment.text, segment.style
            if not text:
                continue
            if style is not None and style.link:
                self._turn(PLAIN)
                self._written.append(Strip.render_style(style, text, self._colours))
            else:
                self._turn(PLAIN if style is None else codes_of(style, self._colours))
                self._written.append(text)

    def put(self, text: str, codes: Codes) -> None:
        """Text in these codes where the pen stands."""
        self._turn(codes)
        self._written.append(text)

    def text(self) -> str:
        """All of it, with the terminal's pen left plain."""
        self._turn(PLAIN)
        return "".join(self._written)

    def _turn(self, wanted: Codes) -> None:
        now, self._set = self._set, wanted
        if now == wanted:
            return
        if wanted == PLAIN:
            self._written.append("\x1b[0m")
            return
        if now[0] != wanted[0]:  # attributes are only ended all together
            parts = ["0"] if now[0] else []
            parts += [each for each in wanted if each] if now[0] else _changes(now, wanted)
        else:
            parts = _changes(now, wanted)
        self._written.append(f"\x1b[{';'.join(parts)}m")


def _changes(now: Codes, wanted: Codes) -> list[str]:
    """From one to the other, where no attribute has to end."""
    parts = [wanted[0]] if wanted[0] != now[0] else []
    if wanted[1] != now[1]:
        parts.append(wanted[1] or "39")
    if wanted[2] != now[2]:
        parts.append(wanted[2] or "49")
    return parts


@lru_cache(maxsize=4096)
def codes_of(style: Style, colours: ColorSystem) -> Codes:
    """The style's codes, taken apart."""
    rendered = Strip.render_style(style, "x", colours)
    if not rendered.startswith("\x1b["):
        return PLAIN
    words = rendered[2 : rendered.index("m")].split(";")
    attributes, front, back = [], "", ""
    at = 0
    while at < len(words):
        word = words[at]
        size = {"2": 5, "5": 3}.get(words[at + 1], 1) if word in ("38", "48") else 1
        code = ";".join(words[at : at + size])
        number = int(word)
        if word == "38" or 30 <= number <= 39 or 90 <= number <= 97:
            front = code
        elif word == "48" or 40 <= number <= 49 or 100 <= number <= 107:
            back = code
        else:
            attributes.append(code)
        at += size
    # The terminal's own colours are what a reset gives: no need to name them.
    return ";".join(attributes), "" if front == "39" else front, "" if back == "49" else back
