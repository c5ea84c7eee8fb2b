"""Which cells of a line differ from the line before, as few stretches as pay."""

from tui.present.ink import Line, has_ground, line_width

JUMP = 12
"""Moving the cursor costs about as many bytes as writing so many plain cells."""


def changed_runs(old: Line, new: Line) -> list[tuple[int, int]]:
    """(first cell, width) of every stretch to write again; all of it where widths disagree."""
    before, after = _cells(old), _cells(new)
    width = len(after)
    if len(before) != width or width != line_width(new) or width != line_width(old):
        return [(0, max(line_width(old), line_width(new)))]
    runs: list[list[int]] = []
    for at, (one, other) in enumerate(zip(before, after, strict=True)):
        if one == other:
            continue
        if runs and at - runs[-1][1] <= JUMP:
            runs[-1][1] = at
        else:
            runs.append([at, at])
    return [(first, last - first + 1) for first, last in runs]


def _cells(line: Line) -> list[tuple[str, str, str]]:
    cells: list[tuple[str, str, str]] = []
    for span in line:
        blank = (" ", span.ink if has_ground(span.ink) else "", span.glow)
        cells += [blank if char == " " else (char, span.ink, span.glow) for char in span.text]
    return cells
