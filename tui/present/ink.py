"""Pieces of a line with a named ink; the palette alone knows which colour an ink is."""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from tui.present.text import cell_width, is_narrow


class Span(NamedTuple):
    """Text in one ink, such as `muted`, `owner:2` or `heat:7`."""

    text: str
    ink: str = ""
    glow: str = ""
    """What is behind it: cursor, good, bad, maybe or nothing."""


Line = tuple[Span, ...]


@lru_cache(maxsize=256)
def has_ground(ink: str) -> bool:
    """Whether the ink colours what is behind the text, so that a blank shows it."""
    return ink == "brand" or ink.endswith("!") or ink.count(":") > 1


def merged(spans: Iterable[Span], *, blanks: bool = False) -> Line:
    """The same line with neighbours of one ink joined: fewer colour codes for the terminal.

    With `blanks` a blank takes the ink of what stands before it, which nobody sees.
    """
    out: list[Span] = []
    for span in spans:
        if not span.text:
            continue
        if blanks and out and span.glow == out[-1].glow and not has_ground(out[-1].ink):
            is_blank = not has_ground(span.ink) and span.text.isspace()
            span = Span(span.text, out[-1].ink, span.glow) if is_blank else span
        if out and out[-1].ink == span.ink and out[-1].glow == span.glow:
            out[-1] = Span(out[-1].text + span.text, span.ink, span.glow)
        else:
            out.append(span)
    return tuple(out)


def cells_of(line: Iterable[Span]) -> list[Span]:
    """A span for each cell; of a letter that takes two the second is empty.

    A blank has no ink where its ink would not be seen, so that blanks compare as they look.
    """
    cells: list[Span] = []
    for span in line:
        text, ink, glow = span
        if text and text.count(text[0]) == len(text) and cell_width(text[0]) == 1:
            first = text[0], ink, glow
            if text[0] == " " and ink and not has_ground(ink):
                first = " ", "", glow
            cells += [span if first == span else Span(*first)] * len(text)
            continue
        blank = (
            span if text == " " and not ink else Span(" ", ink if has_ground(ink) else "", glow)
        )
        if is_narrow(text):
            cells += [blank if char == " " else Span(char, ink, glow) for char in text]
        else:
            for char in text:
                width = cell_width(char)
                if width == 0 and cells:  # it changes the letter before it
                    cells[-1] = Span(cells[-1].text + char, ink, glow)
                    continue
                cells.append(blank if char == " " else Span(char, ink, glow))
                cells += [Span("", ink, glow)] * (width - 1)
    return cells


def line_width(line: Iterable[Span]) -> int:
    """Cells that the line takes."""
    return sum(cell_width(span.text) for span in line)


def plain(line: Iterable[Span]) -> str:
    """The line's text alone."""
    return "".join(span.text for span in line)


def cut(line: Line, width: int, more: str) -> Line:
    """At most `width` cells of the line, with a mark where something is missing."""
    if line_width(line) <= width:
        return line
    kept: list[Span] = []
    room = max(0, width - cell_width(more))
    for span in line:
        size = cell_width(span.text)
        if size > room:
            kept.append(Span(span.text[:room], span.ink, span.glow))
            break
        kept.append(span)
        room -= size
    return (*kept, Span(more, "muted")) if width > 0 else ()
