"""The doctor's findings as lines: the gravest first, each with what, why and do."""

from collections.abc import Sequence

from engine.core.checks import GRAVEST_FIRST, Check, gravest_first, told
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span
from tui.present.listing import matches
from tui.present.text import clean, wrapped

MARKS = {"problem": "failed", "advice": "backoff", "unknown": "stopped", "ok": "ready"}
"""Whose mark each has."""
INKS = {"problem": "error", "advice": "warning", "unknown": "muted", "ok": "good"}
HEADS = {"problem": "Problems", "advice": "Advice", "unknown": "Not known", "ok": "In order"}
LEAST = {
    "problem": "only problems",
    "advice": "problems and advice",
    "unknown": "all but what is in order",
    "ok": "",
}
LABEL = 9


def chosen_checks(checks: Sequence[Check], *, words: str, least: str) -> tuple[Check, ...]:
    """The gravest first: those at least so grave that have the words."""
    shown = GRAVEST_FIRST[: GRAVEST_FIRST.index(least) + 1]
    return tuple(
        gravest_first(one for one in checks if one.state in shown and matches(_text(one), words))
    )


def doctor_lines(checks: Sequence[Check], width: int, glyphs: Glyphs) -> list[Line]:
    """A head for each state; what is in order has one line."""
    lines: list[Line] = []
    state = ""
    for one in checks:
        ink = INKS[one.state]
        if one.state != state:
            state = one.state
            lines += [*([()] if lines and lines[-1] else []), (Span(f" {HEADS[state]}", "title"),)]
        mark = f" {glyphs.marks[MARKS[state]]} {state:<{LABEL - 1}}"
        words = f"{clean(one.id)}: {clean(one.found)}"
        lines += _labelled(mark, ink, words, "name" if state != "ok" else "text", width)
        if state == "ok":
            continue
        for label, said in (
            ("read", "; ".join(f"{each.path} is {_value(each.value)}" for each in one.evidence)),
            ("why", one.why or ""),
            ("do", one.do or ""),
            ("needs", told(one.needs)),
            ("undo", one.undo or ""),
        ):
            if said:
                body = "accent" if label == "do" else "muted" if label == "read" else "text"
                lines += _labelled(f"   {label}", "label", clean(said), body, width)
        lines.append(())
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        lines = [(Span(" Nothing of the kind was found.", "muted"),)]
    return [tuple(Span(spelled(span.text, glyphs), span.ink) for span in line) for line in lines]


def _labelled(label: str, ink: str, words: str, body: str, width: int) -> list[Line]:
    room = LABEL + 3
    return [
        (Span(f"{label if at == 0 else '':<{room}}", ink), Span(part, body))
        for at, part in enumerate(wrapped(words, max(8, width - room)))
    ]


def _value(value: object) -> str:
    return "not told" if value is None else str(value)


def _text(one: Check) -> str:
    read = " ".join(f"{each.path} {each.value}" for each in one.evidence)
    parts = (one.id, one.state, one.found, read, one.why, one.do, one.undo, told(one.needs))
    return " ".join(part for part in parts if part)
