"""A row of tabs, each with where a click on it lands."""

from collections.abc import Sequence

from tui.present.ink import Line, Span


def tabs_line(names: Sequence[str], chosen: str) -> tuple[Line, tuple[tuple[int, int, str], ...]]:
    """`1 history  2 log`: the spans, and (first cell, width, name) of each."""
    spans: list[Span] = [Span(" ")]
    places = []
    x = 1
    for number, name in enumerate(names, 1):
        here = name == chosen
        label = f" {number} {name} "
        spans += [Span(label, "brand" if here else "muted"), Span(" ")]
        places.append((x, len(label), name))
        x += len(label) + 1
    spans.append(Span(" tab: next", "faint"))
    return tuple(spans), tuple(places)
