"""Which cells of a line differ from the line before, as few stretches as pay."""

from collections.abc import Iterable, Sequence

from tui.present.ink import Line, Span, cells_of, plain
from tui.present.text import is_narrow

JUMP = 12
"""Moving the cursor costs about as many bytes as writing so many plain cells."""


def changed_runs(old: Line, new: Line) -> list[tuple[int, int]]:
    """(first cell, width) of every stretch to write again; all of it where widths disagree."""
    if [(len(one.text), one.ink, one.glow) for one in old] == [
        (len(one.text), one.ink, one.glow) for one in new
    ]:
        texts = plain(old), plain(new)
        if all(is_narrow(text) for text in texts):
            pairs = zip(*texts, strict=True)
            return runs(at for at, (one, two) in enumerate(pairs) if one != two)
    return different_runs(cells_of(old), cells_of(new))


def different_runs(old: Sequence[Span], new: Sequence[Span]) -> list[tuple[int, int]]:
    """The same of cells."""
    if len(old) != len(new):
        return [(0, max(len(old), len(new)))]
    return runs(at for at, (one, two) in enumerate(zip(old, new, strict=True)) if one != two)


def runs(cells: Iterable[int]) -> list[tuple[int, int]]:
    """(first cell, width) of the stretches that hold these cells, given from left to right."""
    found: list[list[int]] = []
    for at in cells:
        if found and at - found[-1][1] <= JUMP:
            found[-1][1] = at
        else:
            found.append([at, at])
    return [(first, last - first + 1) for first, last in found]
