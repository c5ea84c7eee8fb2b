"""A figure over time as lines of block characters; what is not known is left open."""

import math
from collections.abc import Sequence

from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span, cut, merged
from tui.present.text import fit
from tui.present.units import number, span
from tui.trails import Metric

INKS = {
    "out": "good",
    "itl": "accent",
    "kv": "gpu",
    "cpu": "pointer",
    "gpu": "gpu",
    "vram": "accent",
}
NICE = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


def scale_top(values: Sequence[float | None], least: float = 1.0) -> float:
    """A round number that no value exceeds."""
    most = max((value for value in values if value is not None), default=0.0)
    if most <= least:
        return least
    power = 10.0 ** math.floor(math.log10(most))
    return next(power * nice for nice in NICE if power * nice >= most * 0.999999)


def plot_lines(
    metric: Metric,
    values: Sequence[float | None],
    height: int,
    glyphs: Glyphs,
    *,
    seconds: float,
    why_unknown: str = "",
) -> list[Line]:
    """A title with the newest value and the scale, then `height - 1` rows of columns."""
    width = len(values)
    top = metric.top or scale_top(values)
    lines = [_title(metric, values, top, width, seconds, glyphs)]
    rows = max(0, height - 1)
    if not any(value is not None for value in values):
        words = spelled(f" {why_unknown or 'nothing known yet'}", glyphs)
        blank: Line = (Span(" " * width),)
        middle: Line = (Span(fit(words, width, more=glyphs.more), "faint"),)
        return [*lines, *(middle if row == rows // 2 else blank for row in range(rows))]
    steps = len(glyphs.area)
    filled = [None if value is None else _steps(value / top, rows * steps) for value in values]
    ink = INKS.get(metric.id, "text")
    for row in range(rows):
        floor = (rows - 1 - row) * steps
        spans = []
        for value in filled:
            if value is None:
                # A gap stays open; a dot where zero would stand tells it from zero.
                spans.append(Span(glyphs.free if row == rows - 1 else " ", "faint"))
            elif value <= floor:
                spans.append(Span(" "))
            elif value >= floor + steps:
                spans.append(Span(glyphs.area[-1], "track" if value > floor + steps else ink))
            else:
                part = glyphs.area[min(steps, value - floor) - 1]
                spans.append(Span(part, ink))
        lines.append(merged(spans))
    return lines


def _steps(share: float, most: int) -> int:
    """Never nothing: zero is known as well, so it draws the lowest line."""
    return max(1, min(most, round(share * most)))


def _title(
    metric: Metric,
    values: Sequence[float | None],
    top: float,
    width: int,
    seconds: float,
    glyphs: Glyphs,
) -> Line:
    newest = values[-1] if values else None
    now = f"{number(newest, metric.decimals)} {metric.unit}"
    head = f"{metric.name} "
    scale = f"0–{number(top, 0 if top >= 5 else 1)} · {span(seconds)}"
    room = width - len(head) - len(now)
    tail = spelled(scale if len(scale) + 2 <= room else "", glyphs)
    spans = (
        Span(spelled(fit(head, min(width, len(head))), glyphs), "label"),
        Span(spelled(now, glyphs), "name" if newest is not None else "faint"),
        Span(" " * max(0, room - len(tail))),
        Span(tail, "faint"),
    )
    return cut(merged(spans), width, glyphs.more)


def history_lines(plots: Sequence[list[Line]], widths: Sequence[int], per_row: int) -> list[Line]:
    """Plots side by side, `per_row` of them, and then the next ones below."""
    lines: list[Line] = []
    for first in range(0, len(plots), per_row):
        group = list(zip(plots[first : first + per_row], widths, strict=False))
        for at in range(max((len(plot) for plot, _ in group), default=0)):
            spans: list[Span] = []
            for index, (plot, width) in enumerate(group):
                row = plot[at] if at < len(plot) else ()
                used = sum(len(each.text) for each in row)
                gap = " " * (width - used + (2 if index + 1 < len(group) else 0))
                spans += [*row, Span(gap)]
            lines.append(merged(spans))
    return lines
