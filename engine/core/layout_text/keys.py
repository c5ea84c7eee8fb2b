"""What a table of a layout file has to say so that below `[defaults]` it means a wish."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from engine.core.layout import Instance

OWN = ("name", "port", "count")
"""Keys that `[defaults]` cannot have."""
_MIXED = ("env", "args")
"""Tables of which an instance's own entries are laid over those of `[defaults]`."""
UNSAID: dict[str, Any] = {
    field.name: field.default if field.default is not msgspec.NODEFAULT else {}
    for field in msgspec.structs.fields(Instance)
    if field.name != "name"
}
"""What a key means that is said nowhere."""
_PATHS = ("model", "command", "python")
ALWAYS = ("engine",)
"""Written into a new file even where it would be just that anyhow: it reads better so."""


def _value(key: str, said: Mapping[str, Any], defaults: Mapping[str, Any]) -> Any:
    """What a table means by this key."""
    own, default = said.get(key), defaults.get(key)
    if key in _MIXED and own is not None and default is not None:
        return {**default, **own}
    return _typed(own if own is not None else default if default is not None else UNSAID[key])


def _own_value(key: str, value: Any, defaults: Mapping[str, Any]) -> Any:
    """What a table has to say so that it means this value; None: nothing."""
    default = defaults.get(key)
    if key in _MIXED and default is not None:
        return {name: one for name, one in value.items() if default.get(name) != one} or None
    if value == (UNSAID[key] if default is None else _typed(default)):
        return None
    return value


def _typed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _cannot_undo(key: str, default: Any, value: Any) -> bool:
    """Whether no own key gives this value below that default."""
    if key in _MIXED:
        return not default.keys() <= value.keys()
    return value is None


def said_of(
    wish: Instance, defaults: Mapping[str, Any], *, always: Sequence[str] = ()
) -> dict[str, Any]:
    """What a table of its own says of this wish."""
    said: dict[str, Any] = {"name": wish.name}
    for key in UNSAID:
        value = getattr(wish, key)
        own = _own_value(key, value, defaults)
        if own is None and key in always and key not in defaults:
            own = value
        if own is not None:
            said[key] = own
    return said


def defaults_for(
    defaults: Mapping[str, Any],
    kept: Sequence[tuple[Mapping[str, Any], Instance]],
    fresh: Sequence[Instance],
) -> dict[str, Any]:
    """What changes in `[defaults]`; None: the key goes.

    No key stays that a wish cannot undo, and what all its heirs changed to stands there.
    `kept` are tables as written, each with what it shall mean.
    """
    wishes = [*(wish for _, wish in kept), *fresh]
    changed: dict[str, Any] = {}
    for key, default in defaults.items():
        if any(_cannot_undo(key, default, getattr(wish, key)) for wish in wishes):
            changed[key] = None
            continue
        heirs = [getattr(wish, key) for said, wish in kept if key not in said]
        alike = bool(heirs) and key not in _MIXED and all(one == heirs[0] for one in heirs)
        if alike and heirs[0] != _typed(default) and (len(heirs) > 1 or key in _PATHS):
            changed[key] = heirs[0]
    return changed


def changes_of(
    said: Mapping[str, Any], wish: Instance, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """What a kept table has to say otherwise."""
    return {
        key: _change(key, getattr(wish, key), said, defaults)
        for key in UNSAID
        if _value(key, said, defaults) != getattr(wish, key)
    }


def _change(key: str, value: Any, said: Mapping[str, Any], defaults: Mapping[str, Any]) -> Any:
    """The own value to write, None to drop the key; one that stands there keeps its line."""
    if key in said and key not in _MIXED and value is not None:
        return value
    if key in said and key in _MIXED:
        # What it repeats of the defaults already, it may go on to repeat.
        default = defaults.get(key, {})
        kept = {
            name: one
            for name, one in value.items()
            if name in said[key] or default.get(name) != one
        }
        return kept or None
    return _own_value(key, value, defaults)
