"""Where each key of a TOML document stands: the readers of TOML keep no positions."""

import tomllib
from collections.abc import Mapping

Path = tuple[str, ...]
"""Keys from the top of the document; an array's elements by their number as text."""

_BARE_ENDS = " \t\r\n.=[]{},#\"'"


def key_lines(text: str) -> dict[Path, int]:
    """The line of each key, table header and array element, counted from 1.

    `text` must be valid TOML (tomllib has read it); of anything else the answer means nothing,
    but there is one.
    """
    return _Scanner(text).run()


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """The line of that key, or of the nearest table around it that stands in the file."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._counted = (0, 1)
        self._lines: dict[Path, int] = {}
        self._arrays: dict[Path, int] = {}
        """Arrays of tables: how many elements each has so far."""

    def run(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip_space():
            if self._peek("["):
                table = self._header()
            else:
                self._assignment(table)
        return self._lines

    def _header(self) -> Path:
        line = self._line()
        double = self._peek("[[")
        self._at += 2 if double else 1
        keys = self._keys()
        path: Path = ()
        for position, key in enumerate(keys):
            path = (*path, key)
            last = position == len(keys) - 1
            if double and last:
                self._lines.setdefault(path, line)
                self._arrays[path] = self._arrays.get(path, -1) + 1
            if path in self._arrays:
                path = (*path, str(self._arrays[path]))
            self._lines.setdefault(path, line)
        self._skip_space()
        self._at += 2 if double else 1
        return path

    def _assignment(self, table: Path) -> None:
        line = self._line()
        path = table
        for key in self._keys():
            path = (*path, key)
            self._lines.setdefault(path, line)
        self._skip_space()
        self._at += 1  # the equals sign
        self._value(path)

    def _value(self, path: Path) -> None:
        self._skip_space()
        if self._peek('"') or self._peek("'"):
            self._string()
        elif self._peek("["):
            self._inside("]", path)
        elif self._peek("{"):
            self._inside("}", path)
        else:
            while self._at < len(self._text) and self._text[self._at] not in ",]}#\n":
                self._at += 1

    def _inside(self, end: str, path: Path) -> None:
        """An array or an inline table."""
        self._at += 1
        element = 0
        while self._skip_space() and not self._peek(end):
            before = self._at
            if end == "}":
                self._assignment(path)
            else:
                self._lines.setdefault((*path, str(element)), self._line())
                self._value((*path, str(element)))
                element += 1
            if self._skip_space() and self._peek(","):
                self._at += 1
            if self._at == before:
                break
        self._at += 1

    def _keys(self) -> list[str]:
        keys: list[str] = []
        while self._skip_space():
            if self._peek('"') or self._peek("'"):
                keys.append(self._string())
            else:
                start = self._at
                while self._at < len(self._text) and self._text[self._at] not in _BARE_ENDS:
                    self._at += 1
                if self._at == start:
                    self._at += 1  # not TOML: go on anyhow
                keys.append(self._text[start : self._at])
            self._skip_space()
            if not self._peek("."):
                break
            self._at += 1
        return keys

    def _string(self) -> str:
        start, quote = self._at, self._text[self._at]
        mark = quote * 3 if self._peek(quote * 3) else quote
        self._at += len(mark)
        while self._at < len(self._text) and not self._peek(mark):
            self._at += 2 if quote == '"' and self._peek("\\") else 1
        self._at += len(mark)
        # Up to two quotes may stand directly before the three that end a string.
        while len(mark) == 3 and self._peek(quote):
            self._at += 1
        try:
            return str(tomllib.loads(f"key = {self._text[start : self._at]}")["key"])
        except ValueError:
            return self._text[start : self._at]

    def _skip_space(self) -> bool:
        """Go past white space and comments; False at the end."""
        while self._at < len(self._text):
            if self._text[self._at] in " \t\r\n":
                self._at += 1
            elif self._peek("#"):
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            else:
                return True
        return False

    def _peek(self, mark: str) -> bool:
        return self._text.startswith(mark, self._at)

    def _line(self) -> int:
        """The line of the current place; counted on from the last one that was asked for."""
        last, number = self._counted
        number += self._text.count("\n", last, self._at)
        self._counted = (self._at, number)
        return number
