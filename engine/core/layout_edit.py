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

from engine.core.command import Command, is_secret, shown_argv
from engine.core.copies import copies_of
from engine.core.errors import CannotPlace, LayoutError
from engine.core.fingerprint import Expect
from engine.core.layout import SCHEMA, Instance, Layout, Ports, Wish, parse_layout
from engine.core.toml_lines import Path
from engine.core.toml_text import Document, Edit, spliced, toml_key, toml_value
from engine.core.topology import Machine

_OWN = ("name", "port", "count")
"""Keys that `[defaults]` cannot have."""
_MIXED = ("env", "args")
"""Tables of which an instance's own entries are laid over those of `[defaults]`."""
_UNSAID: dict[str, Any] = {
    field.name: field.default if field.default is not msgspec.NODEFAULT else {}
    for field in msgspec.structs.fields(Instance)
    if field.name != "name"
}
"""What a key means that is said nowhere."""
_PATHS = ("model", "command", "python")
_ALWAYS = ("engine",)
"""Written into a new file even where it would be just that anyhow: it reads better so."""


@dataclass(frozen=True, slots=True)
class _Table:
    """One `[[instance]]` as written."""

    position: int
    said: dict[str, Any]
    filled: Instance
    copies: tuple[Instance, ...]
    """What it expands to: itself, its copies, or nothing where it has no place here."""

    @property
    def path(self) -> Path:
        return ("instance", str(self.position))


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
    text, defaults = _with_defaults(text, tables, kept, fresh)
    text = _with_keys(text, tables, kept, defaults)
    text = _with_tables(text, tables, kept, fresh, defaults)
    if expect is not None and expect != parse_layout(text, name=name).expect:
        text = _with_expect(text, expect)
    _check(text, wanted, machine, name)
    return text


def written(layout: Layout) -> str:
    """A new file: what the instances share stands in `[defaults]`."""
    wishes = [_shown(wish, None) for wish in layout.instances]
    shared: dict[str, Any] = {}
    for key in _UNSAID:
        values = [getattr(wish, key) for wish in wishes]
        alike = len(values) > 1 and all(value == values[0] for value in values)
        needed = key in _ALWAYS or (alike and values[0] != _UNSAID[key])
        if alike and needed and key not in (*_OWN, "slot"):
            shared[key] = values[0]
    parts = [f"schema = {SCHEMA}\nname = {toml_value(layout.name)}\n"]
    if shared:
        lines = [f"{key} = {toml_value(value)}\n" for key, value in shared.items()]
        parts.append("".join(("[defaults]\n", *lines)))
    parts += [_table_text(wish, shared, always=_ALWAYS) for wish in wishes]
    if layout.ports != Ports():
        parts.append(f"[ports]\nfirst = {layout.ports.first}\nlast = {layout.ports.last}\n")
    if layout.expect is not None and layout.expect != Expect():
        parts.append(f"[expect]\n{expect_text(layout.expect)}")
    return "\n".join(parts)


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
    lines = []
    for key, value in _told(expect).items():
        if value and isinstance(value, list) and isinstance(value[0], dict):
            rows = [
                toml_value({word: told for word, told in row.items() if told is not None})
                for row in value
            ]
            lines += [f"{key} = [", *(f"    {row}," for row in rows), "]"]
        else:
            lines.append(f"{key} = {toml_value(value)}")
    return "".join(f"{line}\n" for line in lines)


def _told(expect: Expect) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(expect)
    return {key: value for key, value in told.items() if value is not None}


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


# Values


def _value(key: str, said: Mapping[str, Any], defaults: Mapping[str, Any]) -> Any:
    """What a table means by this key."""
    own, default = said.get(key), defaults.get(key)
    if key in _MIXED and own is not None and default is not None:
        return {**default, **own}
    value = own if own is not None else default if default is not None else _UNSAID[key]
    return tuple(value) if key == "command" else value


def _own_value(key: str, value: Any, defaults: Mapping[str, Any]) -> Any:
    """What a table has to say so that it means this value; None: nothing."""
    default = defaults.get(key)
    if key in _MIXED and default is not None:
        return {name: one for name, one in value.items() if default.get(name) != one} or None
    if value == (_UNSAID[key] if default is None else _typed(key, default)):
        return None
    return value


def _typed(key: str, value: Any) -> Any:
    return tuple(value) if key == "command" else value


def _cannot_undo(key: str, default: Any, value: Any) -> bool:
    """Whether no own key gives this value below that default."""
    if key in _MIXED:
        return not default.keys() <= value.keys()
    return value is None


def _table_text(wish: Instance, defaults: Mapping[str, Any], *, always: Sequence[str] = ()) -> str:
    lines = [
        f"{toml_key(key)} = {toml_value(value)}\n"
        for key, value in _said(wish, defaults, always=always).items()
    ]
    return "".join(("[[instance]]\n", *lines))


def _said(
    wish: Instance, defaults: Mapping[str, Any], *, always: Sequence[str] = ()
) -> dict[str, Any]:
    """What a table of its own says of this wish."""
    said: dict[str, Any] = {"name": wish.name}
    for key in _UNSAID:
        value = getattr(wish, key)
        own = _own_value(key, value, defaults)
        if own is None and key in always and key not in defaults:
            own = value
        if own is not None:
            said[key] = own
    return said


# Edits


def _with_defaults(
    text: str,
    tables: Sequence[_Table],
    kept: Mapping[int, Instance],
    fresh: Mapping[int, Sequence[Instance]],
) -> tuple[str, dict[str, Any]]:
    """`[defaults]` without what a wish cannot undo, and with what all heirs changed to."""
    written_down = tomllib.loads(text).get("defaults", {})
    every = msgspec.structs.asdict(msgspec.convert(written_down, Wish))
    defaults = {key: value for key, value in every.items() if value is not msgspec.UNSET}
    wishes = [*kept.values(), *(wish for several in fresh.values() for wish in several)]
    changed: dict[str, Any] = {}
    for key, default in defaults.items():
        if any(_cannot_undo(key, default, getattr(wish, key)) for wish in wishes):
            changed[key] = None
            continue
        heirs = [
            getattr(wish, key)
            for position, wish in kept.items()
            if key not in tables[position].said
        ]
        alike = bool(heirs) and key not in _MIXED and all(one == heirs[0] for one in heirs)
        if alike and heirs[0] != _typed(key, default) and (len(heirs) > 1 or key in _PATHS):
            changed[key] = heirs[0]
    if changed:
        text = spliced(text, Document(text).set_keys(("defaults",), written_down, changed))
    after = {**defaults, **changed}
    return text, {key: value for key, value in after.items() if value is not None}


def _with_keys(
    text: str,
    tables: Sequence[_Table],
    kept: Mapping[int, Instance],
    defaults: Mapping[str, Any],
) -> str:
    """Every kept table says what is wished of it."""
    document: Document | None = None
    edits: list[Edit] = []
    for position, wish in kept.items():
        said = tables[position].said
        changes = {
            key: _change(key, getattr(wish, key), said, defaults)
            for key in _UNSAID
            if _value(key, said, defaults) != getattr(wish, key)
        }
        if changes:
            document = document or Document(text)
            edits += document.set_keys(tables[position].path, said, changes)
    return spliced(text, edits)


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


def _with_tables(
    text: str,
    tables: Sequence[_Table],
    kept: Mapping[int, Instance],
    fresh: Mapping[int, Sequence[Instance]],
    defaults: Mapping[str, Any],
) -> str:
    """Without the tables that nobody wishes, and with the new ones."""
    if len(kept) == len(tables) and not fresh[-1]:
        return text
    document = Document(text)
    if document.piece(("instance",)) is not None:
        return _with_elements(document, tables, kept, fresh, defaults)
    eol = document.eol

    def texts(wishes: Sequence[Instance]) -> list[str]:
        return [_table_text(wish, defaults).replace("\n", eol) for wish in wishes]

    edits: list[Edit] = []
    for table in tables:
        new = texts(fresh[-1]) if table is tables[-1] else []
        block, *torn = document.blocks(table.path)
        if table.position in kept:
            if new:
                before = eol if document.begins_line(block.end) else eol + eol
                edits.append((block.end, block.end, before + eol.join(new)))
            continue
        edits += [(part.start, part.blank_end, "") for part in torn]
        # Copies take its place, below the comment that stands above it.
        mine = texts(fresh[table.position])
        start = block.header if mine else block.start
        end = block.end if mine or new else block.blank_end
        edits.append((start, end, eol.join([*mine, *new])))
    result = spliced(text, edits)
    cut = any(end == len(text) for _, end, _ in edits)
    return result.rstrip() + eol if cut else result


def _with_elements(
    document: Document,
    tables: Sequence[_Table],
    kept: Mapping[int, Instance],
    fresh: Mapping[int, Sequence[Instance]],
    defaults: Mapping[str, Any],
) -> str:
    """The same for `instance = [{…}, …]`."""
    text = document.text
    array = document.piece(("instance",))
    elements = [document.piece(table.path) for table in tables]
    assert array is not None

    def texts(wishes: Sequence[Instance]) -> list[str]:
        return [toml_value(_said(wish, defaults)) for wish in wishes]

    items: list[list[str]] = [
        [text[piece.start : piece.end]] if position in kept else texts(fresh[position])
        for position, piece in enumerate(elements)
        if piece is not None
    ]
    items[-1] += texts(fresh[-1])
    if "\n" not in text[array.value : array.end]:
        flat = ", ".join(item for several in items for item in several)
        return spliced(text, [(array.value, array.end, f"[{flat}]")])
    edits: list[Edit] = []
    for piece, several in zip(elements, items, strict=True):
        assert piece is not None
        start = document.line_start(piece.start)
        indent = text[start : piece.start]
        if several and not indent.strip():
            between = f",{document.eol}{indent}"
            edits.append((piece.start, piece.end, between.join(several)))
        elif several:
            edits.append((piece.start, piece.end, ", ".join(several)))
        else:
            edits.append(document.element_lines(piece))
    return spliced(text, edits)


def _with_expect(text: str, expect: Expect) -> str:
    """With this `[expect]` in the place of the old one, else at the end."""
    document = Document(text)
    eol = document.eol
    lines = expect_text(expect).replace("\n", eol)
    blocks = document.blocks(("expect",))
    edits = document.dropped(("expect",), below=blocks)
    if expect == Expect():
        edits += [(block.start, block.blank_end, "") for block in blocks]
    elif blocks and blocks[0].path == ("expect",):
        header, *others = blocks
        before = "" if document.begins_line(header.header_end) else eol
        edits.append((header.header_end, header.end, before + lines))
        edits += [(block.start, block.blank_end, "") for block in others]
    else:
        edits += [(block.start, block.blank_end, "") for block in blocks]
        result = spliced(text, edits)
        gap = eol if result.endswith("\n") else eol + eol
        return f"{result}{gap}[expect]{eol}{lines}"
    result = spliced(text, edits)
    cut = any(end == len(text) for _, end, _ in edits)
    return result.rstrip() + eol if cut else result


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
        raise LayoutError(
            what=f"{name} cannot be edited so that it says what runs",
            why=f"slotdeck finds no way to write {names} into it",
            do="Save into a new file",
        )
