"""Happenings that are new since the last snapshot, and the list of all."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from engine.core.status import Happening
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span
from tui.present.listing import matches
from tui.present.text import clean, wrapped

INKS = {"error": "error", "warning": "warning"}
WORDS = {"information": "info"}
LEVELS = ("information", "warning", "error")
LEVEL_WORDS = {
    "information": "all events",
    "warning": "warnings and errors",
    "error": "errors",
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, and who says so."""

    at: str
    """UTC, ISO 8601."""
    severity: str
    text: str
    source: str = "service"
    """service or panel."""

    @classmethod
    def of(cls, happening: Happening) -> "Event":
        """As the service tells it."""
        return cls(happening.at, happening.severity, happening.text)


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


def chosen_events(events: Sequence[Event], *, words: str, least: str) -> tuple[Event, ...]:
    """Newest first: those at least so severe that have the words."""
    level = LEVELS.index(least)
    return tuple(
        each
        for each in sorted(events, key=lambda one: one.at, reverse=True)
        if _level(each) >= level and matches(f"{each.source} {each.severity} {each.text}", words)
    )


def _level(each: Event) -> int:
    return LEVELS.index(each.severity) if each.severity in LEVELS else 0


def event_lines(events: Sequence[Event], width: int, glyphs: Glyphs) -> list[Line]:
    """Day and time, severity, who says so, text."""
    lines: list[Line] = []
    day = ""
    for each in events:
        date, _, time = clean(each.at).partition("T")
        if date != day:
            day = date
            lines.append((Span(f" {date} UTC", "label"),))
        ink = INKS.get(each.severity, "muted")
        word = WORDS.get(each.severity, clean(each.severity))
        for at, part in enumerate(wrapped(each.text, width - 28)):
            head = f" {time[:8]:<9}{word:<9}" if at == 0 else " " * 19
            who = f"{each.source:<8}" if at == 0 else " " * 8
            lines.append(
                (Span(head, ink), Span(who, "muted"), Span(spelled(part, glyphs), "text"))
            )
    return lines or [(Span(" Nothing of the kind has happened.", "muted"),)]
