"""The bottom line: the keys that work here, each with where a click on it lands."""

from dataclasses import dataclass

from tui.actions import ACTIONS
from tui.present.ink import Line, Span
from tui.view import View


@dataclass(frozen=True, slots=True)
class Key:
    """A key's stretch of the footer."""

    x: int
    width: int
    action: str


def footer_line(view: View, width: int, *, carrying: bool = False) -> tuple[Line, tuple[Key, ...]]:
    """Keys left, destructive ones apart on the right; those that do not work now are faint."""
    if carrying:
        hints = (
            ("arrows", "choose a slot"),
            ("enter", "ask for the plan"),
            ("esc", "put it back"),
        )
        spans = [Span(" ")]
        for key, words in hints:
            spans += [Span(key, "key"), Span(f" {words}   ", "muted")]
        return tuple(spans), ()
    spans = []
    keys: list[Key] = []
    x = 0
    shown = [
        each for each in ACTIONS if not (each.apart and each.why_not(view) and each.id == "forget")
    ]
    apart = [each for each in shown if each.apart]
    right_width = sum(len(each.shown_key) + len(each.label) + 3 for each in apart)
    for action in shown:
        piece = len(action.shown_key) + len(action.label) + 3
        if action.apart and action is apart[0]:
            pad = max(1, width - x - right_width)
            spans.append(Span(" " * pad))
            x += pad
        elif not action.apart and x + piece + right_width > width:
            continue
        works = action.why_not(view) is None
        key_ink = ("key:danger" if action.apart else "key") if works else "faint"
        spans += [
            Span(" "),
            Span(action.shown_key, key_ink),
            Span(f" {action.label} ", "muted" if works else "faint"),
        ]
        keys.append(Key(x, piece, action.id))
        x += piece
    return tuple(spans), tuple(keys)
