"""Values as TOML text, and edits of a document's text that leave all else as it stands."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from engine.core.toml_lines import Path, Piece, pieces

Edit = tuple[int, int, str]
"""Put this text in place of `text[start:end]`."""

_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
}


def toml_value(value: object, *, like: str = "") -> str:
    """The value on one line; text in the quotes of `like`, the value that it replaces."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case Mapping():
            inside = ", ".join(f"{toml_key(str(k))} = {toml_value(v)}" for k, v in value.items())
            return f"{{ {inside} }}" if inside else "{}"
        case Sequence() if not isinstance(value, str):
            return f"[{', '.join(toml_value(one) for one in value)}]"
        case _:
            text = str(value)
            literal = like.startswith("'") and not like.startswith("'''")
            if literal and not re.search(r"['\x00-\x08\x0a-\x1f\x7f]", text):
                return f"'{text}'"
            return f'"{"".join(map(_escaped, text))}"'


def toml_key(key: str) -> str:
    """Bare where TOML lets it be."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_value(key)


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x20 or code == 0x7F else character


def spliced(text: str, edits: Iterable[Edit]) -> str:
    """The text with all edits made; they do not overlap."""
    made: list[str] = []
    at = 0
    for start, end, new in sorted(edits, key=lambda edit: (edit[0], edit[1])):
        made += [text[at:start], new]
        at = end
    return "".join((*made, text[at:]))


@dataclass(frozen=True, slots=True)
class Block:
    """A header's stretch of a document."""

    path: Path
    start: int
    """Of the comment directly above it."""
    header: int
    header_end: int
    end: int
    """After its last key and the comments directly below that."""
    blank_end: int
    """After the blank lines that follow."""


class Document:
    """One version of a text with its pieces; makes edits, changes nothing."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.pieces = pieces(text)
        self.eol = "\r\n" if "\r\n" in text else "\n"
        self.headers = [piece for piece in self.pieces if piece.kind == "header"]
        self._said: dict[Path, list[Piece]] = {}
        for piece in self.pieces:
            if piece.kind != "header":
                self._said.setdefault(piece.path, []).append(piece)

    # Tables

    def set_keys(
        self, table: Path, was: Mapping[str, object], keys: Mapping[str, object | None]
    ) -> list[Edit]:
        """Give a table's keys these values, drop those that are None; `was` is what it holds."""
        whole = self.piece(table)
        edits: list[Edit] = []
        added: dict[str, object] = {}
        for key, value in keys.items():
            changes = None if value is None else self._values(table, key, was.get(key), value)
            if changes is not None:
                edits += changes
            elif whole is not None and key in was:
                # Commas and all: such a table is short, and has no comments of its own.
                kept = {**was, **keys}
                new = {name: one for name, one in kept.items() if one is not None}
                return [(whole.value, whole.end, toml_value(new))]
            else:
                edits += self.dropped((*table, key))
                if value is not None:
                    added[key] = value
        return edits + (self._added(table, whole, added) if added else [])

    def _values(self, table: Path, key: str, old: object, new: object) -> list[Edit] | None:
        """Only what stands after equals signs; None when keys come or go."""
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            if old.keys() != new.keys():
                return None
            parts = [
                self._values((*table, key), name, old[name], new[name])
                for name in new
                if old[name] != new[name] or type(old[name]) is not type(new[name])
            ]
            return [edit for part in parts for edit in part or ()] if all(parts) else None
        said = self._said.get((*table, key), [])
        if len(said) != 1:
            return None
        value = self.text[said[0].value : said[0].end]
        return [(said[0].value, said[0].end, toml_value(new, like=value))]

    def piece(self, path: Path) -> Piece | None:
        """The assignment or element of that path, where there is just one."""
        said = self._said.get(path, [])
        return said[0] if len(said) == 1 else None

    def dropped(self, path: Path, *, below: Sequence[Block] = ()) -> list[Edit]:
        """Without the lines of a key: `key = …`, `key.inner = …` or `[table.key]`.

        What stands in one of the blocks `below` is left out: they are edited as a whole.
        """
        edits: list[Edit] = []
        until = 0
        for piece in self.pieces:
            mine = piece.path[: len(path)] == path and not piece.inline
            inside = any(block.start <= piece.start < block.end for block in below)
            if mine and not inside and piece.start >= until:
                until = self.line_end(piece.end)
                edits.append((self.line_start(piece.start), until, ""))
        return edits

    def element_lines(self, element: Piece) -> Edit:
        """Without this element of an array that stands on several lines."""
        start, end = self.line_start(element.start), element.end
        if self.text[start : element.start].strip():
            start = element.start
        rest = re.compile(r"[ \t]*,?[ \t]*(#[^\n]*)?\r?\n").match(self.text, end)
        if rest and (start < element.start or self.begins_line(element.start)):
            return start, rest.end(), ""
        comma = re.compile(r"\s*,").match(self.text, end)
        return element.start, comma.end() if comma else end, ""

    def _added(self, table: Path, whole: Piece | None, keys: Mapping[str, object]) -> list[Edit]:
        words = [f"{toml_key(key)} = {toml_value(value)}" for key, value in keys.items()]
        if whole is not None:
            inner = [p for p in self.pieces if whole.value < p.start and p.end <= whole.end]
            if not inner:
                return [(whole.value, whole.end, f"{{ {', '.join(words)} }}")]
            at = max(piece.end for piece in inner)
            return [(at, at, "".join(f", {word}" for word in words))]
        header = next(one for one in self.headers if one.path == table)
        following = [one.start for one in self.headers if one.start > header.start]
        end = min(following, default=len(self.text))
        last = max(
            (p for p in self.pieces if header.start <= p.start < end and not p.inline),
            key=lambda piece: piece.start,
        )
        at = self.line_end(last.end)
        indent = self.text[self.line_start(last.start) : last.start]
        lines = "".join(f"{indent}{word}{self.eol}" for word in words)
        return [(at, at, lines if self.begins_line(at) else f"{self.eol}{lines.rstrip()}")]

    # Blocks: a header with its comment above and all that stands below it

    def blocks(self, path: Path) -> list[Block]:
        """The blocks of that table and of the tables inside it; neighbours are one."""
        found: list[Block] = []
        joined = False
        for position, header in enumerate(self.headers):
            mine = header.path[: len(path)] == path
            if mine:
                block = self._block(position)
                if joined:
                    first = found[-1]
                    found[-1] = replace(first, end=block.end, blank_end=block.blank_end)
                else:
                    found.append(block)
            joined = mine
        return found

    def _block(self, position: int) -> "Block":
        header = self.headers[position]
        limit = (
            self._own_start(position + 1) if position + 1 < len(self.headers) else len(self.text)
        )
        last = max(p.end for p in self.pieces if header.start <= p.start < max(limit, header.end))
        end = self.line_end(last)
        while end < limit and self._line(end).lstrip().startswith("#"):
            end = self.line_end(end)
        blank = end
        while blank < limit and not self._line(blank).strip():
            blank = self.line_end(blank)
        return Block(
            path=header.path,
            start=self._own_start(position),
            header=self.line_start(header.start),
            header_end=self.line_end(header.end),
            end=end,
            blank_end=blank,
        )

    def _own_start(self, position: int) -> int:
        """Where the comment directly above a header begins, or the header itself."""
        header = self.headers[position]
        before = [p.end for p in self.pieces if p.start < header.start]
        limit = self.line_end(max(before)) if before else 0
        start = self.line_start(header.start)
        while start > limit:
            above = self.line_start(start - 1)
            if above < limit or not self._line(above).lstrip().startswith("#"):
                break
            start = above
        return start

    # Lines

    def _line(self, at: int) -> str:
        return self.text[at : self.line_end(at)]

    def line_start(self, at: int) -> int:
        """Where the line of this place begins."""
        return self.text.rfind("\n", 0, at) + 1

    def line_end(self, at: int) -> int:
        """Where the next line begins."""
        end = self.text.find("\n", at)
        return len(self.text) if end < 0 else end + 1

    def begins_line(self, at: int) -> bool:
        """Whether a new line begins here."""
        return at == 0 or self.text[at - 1] == "\n"
