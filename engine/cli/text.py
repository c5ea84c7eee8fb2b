"""Words for terminals: aligned tables, bytes with their unit, dashes for the unknown."""

import json
import re
import sys
from collections.abc import Callable, Sequence
from math import floor
from typing import Any, TypeVar

from engine.core.errors import UsageError

_Number = TypeVar("_Number", int, float)

DASH = "–"


def note(text: str) -> None:
    """Something on the way that is no result."""
    print(text, file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Columns aligned; the first `left` ones to the left, the others to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def folded(text: str, width: int, *, indent: str = "") -> list[str]:
    """Lines of at most `width` columns where that can be, broken after spaces, and after the
    commas of long lists such as CPU sets."""
    words = [word for word in re.split(r"(?<= )", text) if word]
    long = width // 3
    pieces = [
        piece
        for word in words
        for piece in (re.split(r"(?<=,)", word) if len(word) > long else [word])
        if piece
    ]
    lines, line = [], ""
    for piece in pieces:
        if line.strip() and len(line) + len(piece.rstrip()) > width:
            lines.append(line.rstrip())
            line = indent
        line += piece
    return [*lines, line.rstrip()]


def shell_lines(words: Sequence[str], width: int, *, indent: str) -> list[str]:
    """A command over several lines that can still be copied into a shell as they stand."""
    lines, line = [], indent
    for word in words:
        if line.strip() and len(line) + len(word) + len(" \\") > width:
            lines.append(f"{line}\\")
            line = f"{indent}  "
        line += f"{word} "
    return [*lines, line.rstrip()]


def number(value: float | None, digits: int = 1) -> str:
    """A dash for the unknown."""
    return DASH if value is None else f"{value:.{digits}f}"


def numbers(flag: str, words: str, kind: Callable[[str], _Number]) -> list[_Number]:
    """What a flag like `--concurrency 1,8` lists. Raises UsageError."""
    try:
        return [kind(word) for word in words.split(",")]
    except ValueError:
        raise UsageError(
            what=f"{flag} {words!r} is no list of numbers",
            why="a list looks like 1,4",
            do="Correct it",
        ) from None


def percent(share: float | None) -> str:
    """A share of 0 to 1 in percent, rounded down: 100 % is all of it."""
    return DASH if share is None else f"{floor(share * 1000 + 1e-9) / 10:g} %"


def size(bytes_: int | None) -> str:
    """Bytes with a binary unit."""
    if bytes_ is None:
        return DASH
    value = float(bytes_)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def print_json(value: dict[str, Any]) -> None:
    """One object on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
