"""A layout file's text made to describe other wishes: only what differs changes.

The rules:

1. A table whose instances are wished as they stand is not touched, comments and order included.
2. A key that differs gets its new value where it stands, in the quotes that it had; a new one
   goes below the table's last. What `[defaults]` says already is not repeated.
3. A default that a wish cannot undo (`cores` for an instance that was moved to a slot of its
   own) leaves `[defaults]`, and goes to the tables that still want it.
4. `each …` and `count` stay one table while all their copies are what they expand to; else a
   table for each copy that is left takes their place.
5. A table without a wish goes, with the comment directly above it. New ones come last.
6. Secrets in `env` are written only where the text had them; `withheld` names the others.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from tomlkit.exceptions import TOMLKitError

from engine.core.command import Command, is_secret, shown_argv
from engine.core.errors import CannotPlace, LayoutError
from engine.core.layout import SCHEMA, Instance, Layout, Ports, Wish, parse_layout
from engine.core.layout_text.keys import ALWAYS, OWN, UNSAID, changes_of, defaults_for, said_of
from engine.core.layout_text.toml_document import Document, toml_lines, toml_value
from engine.core.likeness.fingerprint import Expect
from engine.core.placing.copies import copies_of
from engine.core.topology import Machine


@dataclass(frozen=True, slots=True)
class _Table:
    """One `[[instance]]` as written."""

    position: int
    said: dict[str, Any]
    filled: Instance
    copies: tuple[Instance, ...]
    """What it expands to: itself, its copies, or nothing where it has no place here."""


def edited(
    text: str,
    wishes: Sequence[Instance],
    expect: Expect | None = None,
    *,
    machine: Machine | None = None,
    name: str = "the layout",
) -> str:
    """The text with just these instances; `expect` replaces `[expect]`, None leaves it.

    An `Expect` that tells nothing removes `[expect]`. `machine` says what `each …` expands to;
    without it only the unexpanded wish is known again. A text without a word is written anew.
    Raises LayoutError for a text that is no layout.
    """
    if not text.strip():
        return written(Layout(name=name, instances=tuple(wishes), expect=expect))
    tables = _tables(text, name, machine)
    if not wishes:
        raise LayoutError(
            what=f"{name} cannot be written",
            why="a layout file needs an instance, and there is none",
            do="Start one first",
        )
    known = {one.name: one for table in tables for one in (table.filled, *table.copies)}
    wanted = {wish.name: _shown(wish, known.get(wish.name)) for wish in wishes}
    whole = [table for table in tables if _is_whole(table, wanted)]
    kept = {
        table.position: table.filled if table in whole else wanted[table.filled.name]
        for table in tables
        if table in whole or (table.copies == (table.filled,) and table.filled.name in wanted)
    }
    fresh = _fresh(tables, kept, wanted)
    defaults = _defaults(text)
    in_defaults = defaults_for(
        defaults,
        [(tables[place].said, wish) for place, wish in kept.items()],
        [wish for wishes in fresh.values() for wish in wishes],
    )
    after = {key: one for key, one in {**defaults, **in_defaults}.items() if one is not None}
    changes = {place: changes_of(tables[place].said, wish, after) for place, wish in kept.items()}
    there = parse_layout(text, name=name).expect or Expect()
    told = None if expect == there else expect
    is_same = len(kept) == len(tables) and not fresh[-1] and told is None
    if is_same and not in_defaults and not any(changes.values()):
        return text
    try:
        document = Document(text, name)
        document.put(("defaults",), in_defaults)
        for place, keys in changes.items():
            document.put(("instance", place), keys)
        # First, so that the array never is empty.
        document.append("instance", [said_of(wish, after) for wish in fresh[-1]])
        for table in reversed(tables):
            if table.position not in kept:
                new = [said_of(wish, after) for wish in fresh[table.position]]
                document.replace("instance", table.position, new)
        if told is not None:
            document.put_table("expect", _told(told))
        text = document.text()
    except TOMLKitError as error:
        raise _not_editable(name, str(error)) from None
    _check(text, wanted, machine, name)
    return text


def written(layout: Layout) -> str:
    """A new file: what the instances share stands in `[defaults]`."""
    wishes = [_shown(wish, None) for wish in layout.instances]
    shared: dict[str, Any] = {}
    for key in UNSAID:
        values = [getattr(wish, key) for wish in wishes]
        alike = len(values) > 1 and all(value == values[0] for value in values)
        needed = key in ALWAYS or (alike and values[0] != UNSAID[key])
        if alike and needed and key not in (*OWN, "slot"):
            shared[key] = values[0]
    parts = [f"schema = {SCHEMA}\nname = {toml_value(layout.name)}\n"]
    if shared:
        parts.append(f"[defaults]\n{toml_lines(shared)}")
    parts += [
        f"[[instance]]\n{toml_lines(said_of(wish, shared, always=ALWAYS))}" for wish in wishes
    ]
    if layout.ports != Ports():
        parts.append(f"[ports]\nfirst = {layout.ports.first}\nlast = {layout.ports.last}\n")
    if layout.expect is not None and layout.expect != Expect():
        parts.append(f"[expect]\n{expect_text(layout.expect)}")
    return "\n".join(parts)


def renamed(text: str, name: str) -> str:
    """The text of a layout with another name of its own, where it has one."""
    if "name" not in tomllib.loads(text):
        return text
    document = Document(text, name)
    document.put((), {"name": name})
    return document.text()


def withheld(
    text: str, wishes: Sequence[Instance], *, machine: Machine | None = None
) -> list[str]:
    """The secrets that `edited` leaves out: "a: HF_TOKEN"."""
    tables = _tables(text, "the layout", machine) if text.strip() else []
    known = {one.name: one for table in tables for one in (table.filled, *table.copies)}
    return [
        f"{wish.name}: {variable}"
        for wish in wishes
        for variable in wish.env
        if variable not in _shown(wish, known.get(wish.name)).env
    ]


def expect_text(expect: Expect) -> str:
    """The lines of `[expect]`: each row of a list on a line of its own."""
    return toml_lines(_told(expect))


def _told(expect: Expect) -> dict[str, Any]:
    """What there is to tell, as TOML has no word for nothing."""

    def told(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: told(one) for key, one in value.items() if one is not None}
        return [told(one) for one in value] if isinstance(value, list) else value

    values: dict[str, Any] = told(msgspec.to_builtins(expect))
    return values


# What is there


def _tables(text: str, name: str, machine: Machine | None) -> list[_Table]:
    layout = parse_layout(text, name=name)
    said = tomllib.loads(text)["instance"]
    tables = []
    for position, filled in enumerate(layout.instances):
        try:
            copies = tuple(copies_of(filled, machine)) if machine else (filled,)
        except CannotPlace:
            copies = ()
        tables.append(_Table(position, said[position], filled, copies))
    return tables


def _defaults(text: str) -> dict[str, Any]:
    every = msgspec.structs.asdict(msgspec.convert(tomllib.loads(text).get("defaults", {}), Wish))
    return {key: value for key, value in every.items() if value is not msgspec.UNSET}


def _is_whole(table: _Table, wanted: Mapping[str, Instance]) -> bool:
    if wanted.get(table.filled.name) == table.filled:
        return True
    return bool(table.copies) and all(wanted.get(one.name) == one for one in table.copies)


def _fresh(
    tables: Sequence[_Table], kept: Mapping[int, Instance], wanted: Mapping[str, Instance]
) -> dict[int, list[Instance]]:
    """The wishes that get a table of their own, by the table whose place they take; -1: last."""
    done = {
        one.name
        for table in tables
        if table.position in kept
        for one in (table.filled, *table.copies)
    }
    fresh: dict[int, list[Instance]] = {}
    for table in tables:
        if table.position in kept:
            continue
        mine = [one.name for one in table.copies if one.name in wanted and one.name not in done]
        done.update(mine)
        fresh[table.position] = [wanted[one] for one in mine]
    fresh[-1] = [wish for wish in wanted.values() if wish.name not in done]
    return fresh


def _shown(wish: Instance, known: Instance | None) -> Instance:
    """The wish without the secrets that the text does not hold; those it holds stay."""
    had = known.env if known else {}
    env = {
        variable: had.get(variable, value) if is_secret(variable) else value
        for variable, value in wish.env.items()
        if not is_secret(variable) or variable in had
    }
    if wish.command != (known.command if known else ()) and (
        shown_argv(Command(wish.command)) != wish.command
    ):
        raise LayoutError(
            what=f"Instance {wish.name} cannot be written into a file",
            why="its command holds a secret",
            do="Save into the file that it came from, or give its engine a variable instead",
        )
    return msgspec.structs.replace(wish, env=env)


def _check(text: str, wanted: Mapping[str, Instance], machine: Machine | None, name: str) -> None:
    """A file that says something else is never handed out."""
    found: dict[str, Instance] = {}
    for table in _tables(text, name, machine):
        alone = wanted.get(table.filled.name) == table.filled
        for one in (table.filled,) if alone else table.copies:
            found[one.name] = one
    wrong = {one for one in found.keys() | wanted.keys() if found.get(one) != wanted.get(one)}
    if wrong:
        names = ", ".join(sorted(wrong))
        raise _not_editable(name, f"slotdeck finds no way to write {names} into it")


def _not_editable(name: str, why: str) -> LayoutError:
    return LayoutError(
        what=f"{name} cannot be edited so that it says what runs",
        why=why,
        do="Write it as [defaults] and [[instance]] tables, and save again",
    )
