"""A TOML text edited through tomlkit so that each comment stays by the table it stands above."""

import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import tomlkit
from tomlkit.container import Container
from tomlkit.exceptions import InvalidStringError
from tomlkit.items import AoT, Array, Comment, InlineTable, Item, Null, String, Table, Whitespace

from engine.core.errors import LayoutError

Path = tuple[str | int, ...]
"""Keys from the top of the document, and places in arrays."""


def toml_value(value: object) -> str:
    """The value on one line; of a list of tables each one on a line of its own."""
    if isinstance(value, Mapping):
        inside = ", ".join(f"{toml_key(str(k))} = {toml_value(v)}" for k, v in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        items = [toml_value(one) for one in value]
        if value and isinstance(value[0], Mapping):
            return "".join(("[\n", *(f"    {one},\n" for one in items), "]"))
        return f"[{', '.join(items)}]"
    return str(tomlkit.item(value).as_string())


def toml_key(key: str) -> str:
    """Bare where TOML lets it be."""
    return tomlkit.key(key).as_string()


def toml_lines(values: Mapping[str, object]) -> str:
    """The keys of a table."""
    return "".join(f"{toml_key(key)} = {toml_value(value)}\n" for key, value in values.items())


@dataclass(slots=True)
class _Head:
    """A table's header with what stands between it and the key before it."""

    table: Table
    above: str = "\n"
    """Blank lines, and comments that stand apart."""
    own: str = ""
    """The comment directly above the header, and the header's indentation."""


class Document:
    """A text while it is edited.

    tomlkit counts what stands above a header to the table before it: it would go with that
    table, and new keys would come below it. Here it is kept aside until the text is written.
    """

    def __init__(self, text: str, name: str) -> None:
        self._eol = "\r\n" if "\r\n" in text else "\n"
        self._is_closed = text.endswith("\n")
        plain = text.replace("\r\n", "\n") + ("" if self._is_closed else "\n")
        self.root = tomlkit.parse(plain)
        if self.root.as_string() != plain:
            raise LayoutError(
                what=f"{name} cannot be edited",
                why="the parts of one table stand apart from each other in it",
                do="Put [instance.…] tables directly below their [[instance]], and the "
                "[[instance]] tables one after the other, and save again",
            )
        self._heads: list[_Head] = []
        self._end = ""
        """What stands below the last key and its comment."""
        self._lift()

    def text(self) -> str:
        """What the text is now."""
        for head in self._heads:
            head.table.trivia.indent = head.above + head.own
        text = self.root.as_string() + self._end
        return (text if self._is_closed else text.removesuffix("\n")).replace("\n", self._eol)

    def put(self, path: Path, changes: Mapping[str, Any]) -> None:
        """Give keys of the table there these values where they stand; those that are None go."""
        for key, value in changes.items():
            # Looked up for each key: tomlkit's view of `a.b = …` lines is good for one change.
            table = self._table(path)
            old = table.get(key)
            if value is None:
                table.pop(key, None)
                self._settle()
            elif isinstance(old, InlineTable) and old.keys() != value.keys():
                table[key] = _item(value)
            elif isinstance(old, MutableMapping):
                gone = [inner for inner in old if inner not in value]
                self.put((*path, key), {**dict.fromkeys(gone), **value})
            elif not _is_same(old, value):
                table[key] = _item(value, old)

    def _table(self, path: Path) -> MutableMapping[str, Any]:
        found: Any = self.root
        for key in path:
            found = found[key]
        return cast(MutableMapping[str, Any], found)

    def put_table(self, key: str, values: Mapping[str, object]) -> None:
        """Make it a table with just these values; without any, the table goes."""
        old = self.root.get(key)
        if values and isinstance(old, Table) and not old.is_super_table():
            gone = [
                name
                for name, value in old.items()
                if name not in values or isinstance(value, Table | AoT)
            ]
            self.put((key,), dict.fromkeys(gone))
            self.put((key,), values)
            return
        self.root.pop(key, None)
        self._settle(keeps_comments=False)
        if values:
            table = tomlkit.parse(f"[{key}]\n{toml_lines(values)}").item(key)
            assert isinstance(table, Table)
            self.root.append(key, table)
            self._heads.append(_Head(table, f"{self._end}\n"))
            self._end = ""

    def replace(self, key: str, place: int, tables: Sequence[Mapping[str, object]]) -> None:
        """Put these in the place of one element of an array of tables.

        They take over the comment above it, which goes where there are none of them.
        """
        array = self.root[key]
        if isinstance(array, Array):
            if not tables:
                del array[place]
            for position, values in enumerate(tables):
                if position == 0:
                    array[place] = _item(values)
                else:
                    array.insert(place + position, _item(values))
            return
        heads = [_Head(_element(key, values)) for values in tables]
        start, end = self._span(array.body[place])
        array.body[place : place + 1] = [head.table for head in heads]
        if heads:
            heads[0].above, heads[0].own = self._heads[start].above, self._heads[start].own
            self._heads[start:end] = heads
        self._settle(keeps_comments=False)

    def append(self, key: str, tables: Sequence[Mapping[str, object]]) -> None:
        """Put these last in an array of tables that has some."""
        array = self.root[key]
        if isinstance(array, Array):
            for values in tables:
                array.append(_item(values))
            return
        heads = [_Head(_element(key, values)) for values in tables]
        _, end = self._span(array.body[-1])
        array.body.extend(head.table for head in heads)
        self._heads[end:end] = heads

    def _span(self, table: Table) -> tuple[int, int]:
        """Which of the heads are the table's own and those of the tables inside it."""
        start = next(at for at, head in enumerate(self._heads) if head.table is table)
        return start, start + 1 + len(list(_headers(table.value)))

    def _lift(self) -> None:
        """Take what stands above the headers out of the tree."""
        run: list[_Place] = []
        for container, at, item in _walk(self.root):
            if isinstance(item, Comment | Whitespace):
                run.append((container, at, item))
                continue
            if isinstance(item, Table):
                above, own = _lifted(run)
                self._heads.append(_Head(item, above, own + item.trivia.indent))
            run = []
        self._end, _ = _lifted(run, is_end=True)

    def _settle(self, *, keeps_comments: bool = True) -> None:
        """Leave to the next header, or to the end, what stood above those that have gone."""
        there = {id(table) for table in _headers(self.root)}
        for at, head in reversed(list(enumerate(self._heads))):
            if id(head.table) in there:
                continue
            del self._heads[at]
            left = head.above
            if keeps_comments:
                left += head.own.rstrip(" \t") + _comments(head.table)
            if at < len(self._heads):
                self._heads[at].above = _joined(left, self._heads[at].above)
            else:
                end = _joined(left, self._end).rstrip()
                self._end = f"{end}\n" if end else ""


_Place = tuple[Container, int, Item]


def _walk(container: Container) -> Iterator[_Place]:
    """What there is in the order of the text; a table is its header, if it has one."""
    for at, (_, item) in enumerate(container.body):
        for one in item.body if isinstance(item, AoT) else (item,):
            if not isinstance(one, Null) and not (isinstance(one, Table) and _is_headless(one)):
                yield container, at, one
            if isinstance(one, Table):
                yield from _walk(one.value)


def _is_headless(table: Table) -> bool:
    return table.is_super_table() and not table.is_aot_element()


def _headers(container: Container) -> Iterator[Table]:
    return (item for _, _, item in _walk(container) if isinstance(item, Table))


def _lifted(run: Sequence[_Place], *, is_end: bool = False) -> tuple[str, str]:
    """Takes out of the tree all but the comment directly below the key before.

    Gives what stands apart, and the comment directly above what follows.
    """
    start, end = 0, len(run)
    while end and not is_end and isinstance(run[end - 1][2], Comment):
        end -= 1
    while start < end and isinstance(run[start][2], Comment):
        start += 1
    for container, at, _ in run[start:]:
        container.body[at] = (None, Null())
    texts = [item.as_string() for _, _, item in run]
    return "".join(texts[start:end]), "".join(texts[end:])


def _joined(above: str, below: str) -> str:
    """Without the blank lines of both in a row."""
    return above + (below.lstrip("\n") if above == "\n" or above.endswith("\n\n") else below)


def _comments(table: Table) -> str:
    return "".join(
        item.as_string() for _, _, item in _walk(table.value) if isinstance(item, Comment)
    )


def _element(key: str, values: Mapping[str, object]) -> Table:
    tables = tomlkit.parse(f"[[{key}]]\n{toml_lines(values)}").item(key)
    assert isinstance(tables, AoT)
    return tables.body[0]


def _item(value: object, old: object = None) -> Item:
    """The value, text in the quotes of the one that it replaces."""
    if isinstance(value, str) and isinstance(old, String) and re.match("'(?!'')", old.as_string()):
        with suppress(InvalidStringError):
            return tomlkit.string(value, literal=True)
    return tomlkit.value(toml_value(value))


def _is_same(old: object, new: object) -> bool:
    plain = old.unwrap() if isinstance(old, Item) else old
    return type(plain) is type(new) and plain == new
