"""Keys as they stand on a keyboard, and as Textual names them."""

import unicodedata
from collections.abc import Mapping

NAMED = (
    *("enter", "escape", "tab", "space", "backspace", "delete", "insert", "home", "end"),
    *("pageup", "pagedown", "up", "down", "left", "right"),
    *(f"f{number}" for number in range(1, 25)),
)
MODIFIERS = ("ctrl", "alt", "shift")
FIXED = frozenset(
    {
        *("enter", "escape", "tab", "shift+tab", "up", "down", "left", "right"),
        *("pageup", "pagedown", "home", "end", "backspace", "h", "j", "k"),
        *("ctrl+c", "ctrl+p", "ctrl+q"),
    }
)
"""Moving, choosing and leaving: the same in every part of the panel."""
_RENAMED = {
    "solidus": "slash",
    "reverse_solidus": "backslash",
    "commercial_at": "at",
    "hyphen_minus": "minus",
    "plus_sign": "plus",
    "low_line": "underscore",
}


def key_name(written: str) -> str | None:
    """What Textual calls the key that is written so (`x`, `?`, `ctrl+d`, `f5`); None for none."""
    *modifiers, key = written.split("+") if len(written) > 1 else [written]
    if any(modifier not in MODIFIERS for modifier in modifiers):
        return None
    if len(key) == 1:
        if not key.isprintable():
            return None
        if key.isalnum():
            # Upper case is a key of its own; with a modifier terminals tell no difference.
            return "+".join((*modifiers, key.lower())) if modifiers else key
        key = unicodedata.name(key, "").lower().replace("-", "_").replace(" ", "_")
        key = _RENAMED.get(key, key)
    elif key not in NAMED:
        return None
    return "+".join((*modifiers, key))


def shown(name: str) -> str:
    """The key as it stands on a keyboard: `?` for `question_mark`, `^p` for `ctrl+p`."""
    *modifiers, key = name.split("+")
    back = {new: old for old, new in _RENAMED.items()}
    try:
        if key not in NAMED and len(key) > 1:
            key = unicodedata.lookup(_with_hyphen(back.get(key, key)))
    except KeyError:
        pass
    key = {"escape": "esc", "pageup": "pgup", "pagedown": "pgdn"}.get(key, key)
    return "".join("^" if each == "ctrl" else f"{each}+" for each in modifiers) + key


def _with_hyphen(name: str) -> str:
    """Unicode's own name: `hyphen_minus` was HYPHEN-MINUS, `less_than_sign` LESS-THAN SIGN."""
    words = name.upper().replace("_", " ")
    for half in ("HYPHEN MINUS", "LESS THAN", "GREATER THAN"):
        words = words.replace(half, half.replace(" ", "-"))
    return words


def keys_of(action: str, default: str, chosen: Mapping[str, str]) -> tuple[str, ...]:
    """Textual's names of an action's keys; several are told apart by commas."""
    return tuple(chosen.get(action, default).split(","))
