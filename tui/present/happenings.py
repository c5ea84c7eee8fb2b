"""Happenings that are new since the last snapshot, and the list of all."""

from collections import Counter
from collections.abc import Sequence

from engine.core.status import Happening
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span
from tui.present.text import clean, wrapped

INKS = {"error": "error", "warning": "warning"}
WORDS = {"information": "info"}


def fresh(before: Sequence[Happening], after: Sequence[Happening]) -> tuple[Happening, ...]:
    """What `after` has more than `before`; two equal lines are two happenings."""
    known = Counter(before)
    new = []
    for each in after:
        if known[each]:
            known[each] -= 1
        else:
            new.append(each)
    return tuple(new)


def event_lines(happenings: Sequence[Happening], width: int, glyphs: Glyphs) -> list[Line]:
    """Newest first: time, severity, text."""
    lines: list[Line] = []
    for each in reversed(happenings):
        time = clean(each.at).partition("T")[2][:8] or clean(each.at)[:8]
        for at, part in enumerate(wrapped(each.text, width - 19)):
            word = WORDS.get(each.severity, each.severity)
            head = f" {time:<9}{word:<9}" if at == 0 else " " * 19
            ink = INKS.get(each.severity, "muted")
            lines.append((Span(head, ink), Span(spelled(part, glyphs), "text")))
    return lines or [(Span(" Nothing has happened yet.", "muted"),)]
