"""Boxes of text inside boxes, side by side where the terminal is wide enough."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.cli.text import folded

_FRAME = 4
"""A border and a blank on either side."""
_GAP = 1
_COMFORT = 62
"""Wider than this, lines are rather folded than boxes stacked."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line that may be folded; what follows its first line is indented."""

    text: str
    indent: str = "  "


@dataclass(frozen=True, slots=True)
class Box:
    """A frame with words in its upper edge: a title on the left, a note on the right."""

    title: str
    note: str
    lines: tuple[Line, ...]
    inside: tuple["Box", ...] = ()
    round: bool = False

    def draw(self, width: int, height: int = 0, *, stacked: bool = False) -> list[str]:
        """Lines of exactly `width` columns, at least `height` of them."""
        inner = width - _FRAME
        body: list[str] = []
        for line in self.lines:
            for part in folded(line.text, inner, indent=line.indent):
                body += _cut(part, inner)
        body += tiled(self.inside, inner, fill=True, stacked=stacked)
        body += [""] * (height - 2 - len(body))
        left, right, low_left, low_right = "╭╮╰╯" if self.round else "┌┐└┘"
        edge = f"─ {self.title} ".ljust(width - 2 - len(self.note) - 3, "─")
        edge = f"{edge} {self.note} ─" if self.note else edge
        # A title that fits nowhere: better cut than a broken frame.
        edge = edge[: width - 2].ljust(width - 2, "─")
        return [
            f"{left}{edge}{right}",
            *(f"│ {line.ljust(inner)} │" for line in body),
            f"{low_left}{'─' * (width - 2)}{low_right}",
        ]

    def least(self) -> int:
        """The columns that it needs with its boxes below each other."""
        words = max((len(line.text) for line in self.lines), default=0)
        inner = max((box.least() for box in self.inside), default=0)
        edge = len(self.title) + len(self.note) + 9
        return max(edge, min(words, _COMFORT) + _FRAME, inner + _FRAME)


def tiled(
    boxes: Sequence[Box], width: int, *, fill: bool = False, stacked: bool = False
) -> list[str]:
    """Boxes in rows, as many beside each other as fit, all of one width.

    Those in boxes that stand beside each other are stacked, so that all look alike.
    """
    if not boxes:
        return []
    columns = 1 if stacked else _columns(boxes, width)
    each = (width - _GAP * (columns - 1)) // columns
    within = stacked or columns > 1
    if not fill:
        each = min(each, max(_natural(box, each, stacked=within) for box in boxes))
    lines: list[str] = []
    for start in range(0, len(boxes), columns):
        row = boxes[start : start + columns]
        height = max(len(box.draw(each, stacked=within)) for box in row)
        drawn = [box.draw(each, height, stacked=within) for box in row]
        lines += [(" " * _GAP).join(parts) for parts in zip(*drawn, strict=True)]
    return lines


def _columns(boxes: Sequence[Box], width: int) -> int:
    """How many beside each other, in rows that are as even as can be."""
    least = max(box.least() for box in boxes)
    most = max(1, min(len(boxes), (width + _GAP) // (least + _GAP)))
    rows = -(-len(boxes) // most)
    return -(-len(boxes) // rows)


def _natural(box: Box, most: int, *, stacked: bool) -> int:
    """The columns that a box needs, with what is in it beside each other where that fits."""
    columns = 1 if stacked or not box.inside else _columns(box.inside, most - _FRAME)
    inner = max((each.least() for each in box.inside), default=0)
    across = columns * (inner + _GAP) - _GAP + _FRAME if box.inside else 0
    return min(most, max(box.least(), across))


def _cut(line: str, width: int) -> list[str]:
    """A word longer than the box in pieces."""
    if width < 1 or len(line) <= width:
        return [line]
    return [line[at : at + width] for at in range(0, len(line), width)]
