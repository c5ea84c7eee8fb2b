"""Words for terminals: aligned tables, bytes with their unit, dashes for the unknown."""

import json
from collections.abc import Sequence
from typing import Any

DASH = "–"


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


def number(value: float | None, digits: int = 1) -> str:
    """A dash for the unknown."""
    return DASH if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """A share of 0 to 1 in percent."""
    return DASH if share is None else f"{share * 100:.0f} %"


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
