"""The bottom line: the keys that work here, each with where a click on it lands."""

from collections.abc import Sequence
from dataclasses import dataclass

from tui.actions import ACTIONS, Action
from tui.present.ink import Line, Span
from tui.present.keys import keys_of, shown
from tui.view import View

ROOM_FOR_ALL = 100
"""Narrower, of the destructive keys only those stand there that are wanted most."""
ALWAYS = ("help", "quit")
"""However narrow it is: whoever knows these finds all the others."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key's stretch of the footer."""

    x: int
    width: int
    action: str


def footer_line(
    view: View, width: int, *, actions: Sequence[Action] = ACTIONS, carrying: bool = False
) -> tuple[Line, tuple[Key, ...]]:
    """Keys left, destructive ones apart on the right; those that do not work now are faint."""
    if carrying:
        hints = (
            ("arrows", "choose a slot"),
            ("[ ]", "cores"),
            ("+ -", "zoom"),
            ("enter", "plan"),
            ("esc", "put back"),
        )
        spans = [Span(" ")]
        for key, words in hints:
            spans += [Span(key, "key"), Span(f" {words}   ", "muted")]
        return tuple(spans), ()
    apart = [each for each in actions if each.apart and _is_shown_apart(each, view, width)]
    right_width = sum(_width(each, view) for each in apart)
    room = width - right_width - bool(apart)  # at least one cell keeps them apart
    shown_left = _fitting([each for each in actions if not each.apart], view, room)
    spans = []
    keys: list[Key] = []
    x = 0
    for action in (*shown_left, *apart):
        if apart and action is apart[0]:
            pad = max(1, width - x - right_width)
            spans.append(Span(" " * pad))
            x += pad
        works = action.why_not(view) is None
        key_ink = ("key:danger" if action.apart else "key") if works else "faint"
        spans += [
            Span(" "),
            Span(_key(action, view), key_ink),
            Span(f" {_label(action, view)} ", "muted" if works else "faint"),
        ]
        piece = _width(action, view)
        keys.append(Key(x, piece, action.id))
        x += piece
    return tuple(spans), tuple(keys)


def _fitting(actions: Sequence[Action], view: View, room: int) -> list[Action]:
    """In their order, as many as have room beside those that are always there."""
    must = [each for each in actions if each.id in ALWAYS or _is_urgent(each, view)]
    room -= sum(_width(each, view) for each in must)
    kept = []
    for action in actions:
        if action in must:
            kept.append(action)
        elif (size := _width(action, view)) <= room:
            room -= size
            kept.append(action)
        else:
            room = 0  # no later, shorter one in its place: the order is what one learns
    return kept


def _is_shown_apart(action: Action, view: View, width: int) -> bool:
    match action.id:
        case "forget":
            return action.why_not(view) is None
        case "restart":
            return width >= ROOM_FOR_ALL
        case _:
            return True


def _is_urgent(action: Action, view: View) -> bool:
    match action.id:
        case "mouse":
            return not view.mouse
        case "repair":
            return action.why_not(view) is None
        case _:
            return False


def _key(action: Action, view: View) -> str:
    return shown(keys_of(action.id, action.key, view.keys)[0])


def _label(action: Action, view: View) -> str:
    if action.id == "mouse" and not view.mouse:
        return "mouse is the terminal's"
    return action.label


def _width(action: Action, view: View) -> int:
    return len(_key(action, view)) + len(_label(action, view)) + 3
