"""Mistakes in a layout file in words: the file, the line, and the nearest right word."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

import msgspec
from msgspec import Struct, inspect

from engine.core.errors import LayoutError
from engine.core.layout_text.toml_lines import Path, key_lines, line_of

_WORDS = {
    "object": "a table",
    "array": "a list",
    "int": "a whole number",
    "float": "a number",
    "str": "text in quotes",
    "bool": "true or false",
    "datetime": "a date",
    "date": "a date",
    "time": "a time",
}


class Mistakes:
    """Makes the errors of one file."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text
        self._lines: dict[Path, int] | None = None

    def at(self, path: Path, why: str, do: str) -> LayoutError:
        """A mistake in what stands under these keys; where they are left out, around them."""
        return self.on_line(line_of(self._where(), path), why, do)

    def on_line(self, line: int, why: str, do: str) -> LayoutError:
        return LayoutError(what=f"{self._name}, line {line} has a mistake", why=why, do=do)

    def has(self, path: Path) -> bool:
        """Whether the file says this key."""
        return path in self._where()

    def said(self, instance: int, key: str) -> Path:
        """Where an instance's key comes from: its own table, or `[defaults]`."""
        own, default = ("instance", str(instance), key), ("defaults", key)
        return default if self.has(default) and not self.has(own) else own

    def not_toml(self, error: Exception) -> LayoutError:
        """What tomllib says, with its line in front."""
        why = str(error) or type(error).__name__
        found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", why)
        line = self._text.count("\n", 0, len(self._text.rstrip())) + 1
        if isinstance(error, RecursionError):
            why, line = "lists or tables stand too deep inside each other", _deepest(self._text)
        elif found and found.group(1):
            line = int(found.group(1))
        elif not found and (number := re.search(r"\d[\d_]{4000,}", self._text)):
            # Python's own limit, which it tells without a place.
            line = self._text.count("\n", 0, number.start()) + 1
            why = f"a number of {len(number[0])} digits is more than can be read"
        return LayoutError(
            what=f"{self._name}, line {line} is not TOML",
            why=why,
            do="Correct that line and try again",
        )

    def of_shape(
        self, document: Mapping[str, object], error: msgspec.ValidationError, shape: type[Struct]
    ) -> LayoutError:
        """Turn msgspec's "… - at `$.instance[1].numa`" into file, line and nearest word."""
        message, _, where = str(error).rpartition(" - at `$")
        if not where.endswith("`") or not re.fullmatch(r"(\.\w+|\[[\d.]*\])*`", where):
            message, where = str(error), ""
        path: Path = tuple(re.findall(r"\w+|(?<=\[)\.\.\.(?=\])", where))
        table = _inside(document, path)
        wanted = _type_at(inspect.type_info(shape), path)
        if message.startswith("Object") and not isinstance(table, Mapping):
            # The unknown key itself looks like the end of such a message.
            path, table, wanted = (), document, inspect.type_info(shape)
        if isinstance(wanted, inspect.StructType) and isinstance(table, Mapping):
            return self._of_table(path, table, wanted)
        if path and path[-1] == "...":
            path = self._guilty(path[:-1], document)
            table = _inside(document, path)
        if path == ("instance",) and isinstance(table, Mapping):
            return self.at(
                path, "an instance needs two pairs of brackets", "Write [[instance]] here"
            )
        key = next((part for part in reversed(path) if not part.isdigit()), "the file")
        if path[:1] == ("instance",) and key == "name" and isinstance(table, str):
            why = "a name is 1 to 63 letters, digits, '.', '-' or '_', a letter or digit first"
            shown = shortened(repr(table))
            return self.at(path, f"{shown} cannot be a name: {why}", "Correct the name")
        if isinstance(wanted, inspect.UnionType) and message.startswith("Invalid enum value"):
            # "A number or one of these words": it was a word.
            wanted = next(one for one in wanted.types if isinstance(one, inspect.LiteralType))
        if isinstance(wanted, inspect.LiteralType):
            choices = [str(value) for value in wanted.values]
            return self.not_a_value(path, key, table, choices)
        if path[-2:-1] == ("env",):
            shown = "…" if isinstance(table, Mapping | list) else _toml(table)
            return self.at(path, f"{key} must be text in quotes", f'Write {key} = "{shown}"')
        return self.at(path, f"{key} {_must_be(message)}", f"Correct {key}")

    def not_a_value(
        self, path: Path, key: str, value: object, choices: Iterable[str]
    ) -> LayoutError:
        """A word that is none of those which this key may have."""
        known = list(choices)
        hint = nearest(str(value), known)
        why = f"{shortened(repr(value))} is not a value of {key}"
        return self.at(path, why, f"{hint}It may be: {', '.join(known)}")

    def _of_table(
        self, path: Path, table: Mapping[str, object], wanted: inspect.StructType
    ) -> LayoutError:
        """A table with a key too much or one too few."""
        place = f"[{path[0]}]" if path else "the file"
        if path[:1] == ("instance",):
            place = "[[instance]]"
        known = sorted(field.encode_name for field in wanted.fields)
        unknown = next((key for key in table if key not in known), None)
        if unknown is not None:
            why = f"{shortened(repr(unknown))} is not a key of {place}"
            do = f"{nearest(unknown, known)}It may hold: {', '.join(known)}"
            return self.at((*path, unknown), why, do)
        lacking = ", ".join(
            field.encode_name
            for field in wanted.fields
            if field.required and field.encode_name not in table
        )
        return self.at(path, f"{place} has no {lacking}", f"Add {lacking} = … to {place}")

    def _guilty(self, path: Path, document: Mapping[str, object]) -> Path:
        """msgspec does not tell which key of a free table (env, args) has the wrong value."""
        table = _inside(document, path)
        right = (str,) if path[-1] == "env" else (str, int, float, bool)
        if isinstance(table, Mapping):
            for key, value in table.items():
                if not isinstance(value, right):
                    return (*path, str(key))
        return path

    def _where(self) -> dict[Path, int]:
        if self._lines is None:
            self._lines = key_lines(self._text)
        return self._lines


def nearest(word: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'? `, or nothing when no word is near."""
    words = list(known)
    near = get_close_matches(word.lower()[:64], words, n=1, cutoff=0.5)
    near = near or [one for one in words if one.startswith(word.lower()[:3]) and len(word) > 2]
    return f"Did you mean {near[0]!r}? " if near else ""


def _deepest(text: str) -> int:
    """The line with the most brackets open; those in texts and comments count too, which is near
    enough for a file that has hundreds."""
    depth = most = 0
    line = 1
    for number, written in enumerate(text.split("\n"), 1):
        for character in written:
            depth += (character in "[{") - (character in "]}")
            if depth > most:
                most, line = depth, number
    return line


def _inside(document: object, path: Path) -> object:
    for part in path:
        if isinstance(document, Mapping):
            document = document.get(part)
        elif isinstance(document, list) and part.isdigit() and int(part) < len(document):
            document = document[int(part)]
    return document


def _type_at(wanted: inspect.Type, path: Path) -> inspect.Type | None:
    """The type that stands under these keys of a Struct, or None."""
    found: inspect.Type | None = wanted
    for part in path:
        match found:
            case inspect.StructType(fields=fields):
                found = next((one.type for one in fields if one.encode_name == part), None)
            case inspect.ListType(item_type=inner):
                found = inner
            case _:
                return None
        if isinstance(found, inspect.UnionType):
            # "… or nothing": the one other type is meant.
            rest = [one for one in found.types if not isinstance(one, inspect.NoneType)]
            found = rest[0] if len(rest) == 1 else found
    return found


def _must_be(message: str) -> str:
    """msgspec's "Expected `int` >= 1" or "Expected `int`, got `str`" in words."""
    wanted = re.match(r"Expected `([^`]*)`([^,]*)(?:, got `(\w+)`)?", message)
    if not wanted:
        return f"is wrong: {message}"
    kinds = [_WORDS.get(kind, kind) for kind in re.findall(r"\w+", wanted.group(1))]
    bound = wanted.group(2).replace(">=", "of at least").replace("<=", "of at most")
    bound = bound.replace(">", "above").replace("<", "below")
    got = f", not {_WORDS.get(wanted.group(3), wanted.group(3))}" if wanted.group(3) else ""
    return f"must be {' or '.join(kinds)}{bound}{got}"


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else shortened(str(value))


def shortened(text: str) -> str:
    """As much of it as a message can quote."""
    return text if len(text) <= 60 else f"{text[:60]}…"
