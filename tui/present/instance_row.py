"""The instance table: which columns fit, and one row's cells."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engine.core.status import InstanceStatus
from tui.present.badges import Badge
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span, merged
from tui.present.text import cell_width, clean, fit
from tui.present.units import gib, number


@dataclass(frozen=True, slots=True)
class Column:
    """A column with its unit in the header."""

    id: str
    head: str
    cell: Callable[[InstanceStatus], str]
    right: bool = True
    most: int = 12
    """Widest that it grows for its contents."""


def _requests(each: InstanceStatus) -> str:
    return f"{number(each.requests.running)}/{number(each.requests.waiting)}"


def _local(each: InstanceStatus) -> str:
    return number(None if each.pages_local is None else each.pages_local * 100)


COLUMNS = (
    Column("name", "instance", lambda each: clean(each.name), right=False, most=24),
    Column("state", "state", lambda each: each.state.value, right=False),
    Column("slot", "slot", lambda each: clean(each.slot), right=False, most=20),
    Column("pus", "PUs", lambda each: clean(each.pus), right=False, most=20),
    Column("out", "out tok/s", lambda each: number(each.tokens_per_s.output, 1)),
    Column("in", "in tok/s", lambda each: number(each.tokens_per_s.prompt, 1)),
    Column("ttft", "TTFT ms", lambda each: number(each.ttft_ms.p50)),
    Column("itl", "ITL ms", lambda each: number(each.itl_ms.p50, 1)),
    Column("cores", "CPU cores", lambda each: number(each.cpu_cores_used, 2)),
    Column("local", "local %", _local),
    Column("requests", "run/wait", _requests),
    Column("rss", "RSS GiB", lambda each: gib(each.rss_bytes, 2)),
    Column("restarts", "restarts", lambda each: number(each.restarts)),
)
DROP_ORDER = (
    "restarts",
    "in",
    "rss",
    "requests",
    "cores",
    "local",
    "pus",
    "itl",
    "slot",
    "ttft",
    "out",
)
"""Which column goes first where the terminal is narrow."""
GAP = 2
LEAD = 4
"""Pointer, badge and their gaps."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that fit, with their widths."""

    shown: tuple[Column, ...]
    widths: tuple[int, ...]


def fitting(instances: Iterable[InstanceStatus], width: int) -> Columns:
    """Columns that fit into `width`, dropped in a fixed order."""
    rows = list(instances)
    wide = {column.id: _width(column, rows) for column in COLUMNS}
    kept = list(COLUMNS)
    for victim in (*DROP_ORDER, "state"):
        if LEAD + sum(wide[column.id] + GAP for column in kept) - GAP <= width:
            break
        kept = [column for column in kept if column.id != victim]
    if len(kept) == 1:
        wide["name"] = max(1, min(wide["name"], width - LEAD))
    return Columns(tuple(kept), tuple(wide[column.id] for column in kept))


def _width(column: Column, rows: list[InstanceStatus]) -> int:
    extra = 2 if column.id == "state" else 0
    floor = 10 if column.id == "state" else 0
    contents = [cell_width(column.cell(each)) + extra for each in rows]
    return max(cell_width(column.head), floor, min(column.most, max(contents, default=0)))


def head_row(columns: Columns) -> Line:
    """The header, aligned as its cells are."""
    spans = [Span(" " * LEAD)]
    for column, width in zip(columns.shown, columns.widths, strict=True):
        spans.append(Span(fit(column.head, width, right=column.right) + " " * GAP, "head"))
    return merged(spans)


def instance_row(
    each: InstanceStatus, columns: Columns, badge: Badge, glyphs: Glyphs, *, selected: bool
) -> Line:
    """One instance: pointer, badge, cells."""
    spans = [
        Span(glyphs.pointer if selected else " ", "pointer"),
        Span(badge.letter, badge.ink),
        Span("  "),
    ]
    for column, width in zip(columns.shown, columns.widths, strict=True):
        text = column.cell(each)
        if column.id == "state":
            mark = glyphs.marks.get(each.state.value, "?")
            spans.append(Span(fit(f"{mark} {text}", width), f"state:{each.state.value}"))
        else:
            cell = fit(spelled(text, glyphs), width, right=column.right, more=glyphs.more)
            ink = "name" if column.id == "name" else "number"
            spans.append(Span(cell, "faint" if text.strip("–/") == "" else ink))
        spans.append(Span(" " * GAP))
    return merged(spans)
