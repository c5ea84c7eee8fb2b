"""The instance table: which columns fit, and one row's cells."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from engine.core.status import InstanceStatus
from tui.present.badges import Badge
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span, merged
from tui.present.text import cell_width, clean, fit
from tui.present.units import UNKNOWN, gib, number, span


@dataclass(frozen=True, slots=True)
class Column:
    """A column with its unit in the header."""

    id: str
    head: str
    cell: Callable[[InstanceStatus], str]
    right: bool = True
    most: int = 12
    """Widest that it grows for its contents."""
    order: Callable[[InstanceStatus], float | None] | None = None
    """What it is sorted by, where that is not the cell's own text; None comes last."""


def _requests(each: InstanceStatus) -> str:
    return f"{number(each.requests.running)}/{number(each.requests.waiting)}"


def _kv(each: InstanceStatus) -> str:
    return number(None if each.kv_cache_used is None else each.kv_cache_used * 100)


def _local(each: InstanceStatus) -> str:
    return number(None if each.pages_local is None else each.pages_local * 100)


def _figure(
    name: str,
    head: str,
    read: Callable[[InstanceStatus], float | None],
    decimals: int = 0,
    *,
    cell: Callable[[InstanceStatus], str] | None = None,
) -> Column:
    """A number: shown rounded, sorted as it is."""
    return Column(name, head, cell or (lambda each: number(read(each), decimals)), order=read)


COLUMNS = (
    Column("name", "instance", lambda each: clean(each.name), right=False, most=24),
    Column("state", "state", lambda each: each.state.value, right=False),
    Column("slot", "slot", lambda each: clean(each.slot), right=False, most=20),
    Column("pus", "PUs", lambda each: clean(each.pus), right=False, most=20),
    _figure("out", "out tok/s", lambda each: each.tokens_per_s.output, 1),
    _figure("in", "in tok/s", lambda each: each.tokens_per_s.prompt, 1),
    _figure("ttft", "TTFT ms", lambda each: each.ttft_ms.p50),
    _figure("itl", "ITL ms", lambda each: each.itl_ms.p50, 1),
    _figure("cores", "CPU cores", lambda each: each.cpu_cores_used, 2),
    _figure("local", "local %", lambda each: each.pages_local, cell=_local),
    _figure("requests", "run/wait", lambda each: each.requests.running, cell=_requests),
    _figure(
        "rss", "RSS GiB", lambda each: each.rss_bytes, cell=lambda each: gib(each.rss_bytes, 2)
    ),
    _figure("restarts", "restarts", lambda each: each.restarts),
)
ALL_COLUMNS = (
    *COLUMNS,
    _figure("kv", "KV %", lambda each: each.kv_cache_used, cell=_kv),
    _figure("since", "since", lambda each: each.since_s, cell=lambda each: span(each.since_s)),
    _figure("port", "port", lambda each: each.port),
    _figure("pid", "pid", lambda each: each.pid, cell=lambda each: str(each.pid or UNKNOWN)),
    Column("engine", "engine", lambda each: clean(each.engine), right=False),
    Column("model", "model", lambda each: clean(each.model), right=False, most=32),
)
DROP_ORDER = (
    "pid",
    "model",
    "port",
    "since",
    "engine",
    "kv",
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


def fitting(
    instances: Iterable[InstanceStatus], width: int, columns: Sequence[Column] = COLUMNS
) -> Columns:
    """Columns that fit into `width`, dropped in a fixed order."""
    rows = list(instances)
    wide = {column.id: _width(column, rows) for column in columns}
    kept = list(columns)
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


def head_row(columns: Columns, *, sorted_by: str = "", sign: str = "") -> Line:
    """The header, aligned as its cells are; the sign stands beside the column sorted by."""
    spans = [Span(" " * LEAD)]
    for column, width in zip(columns.shown, columns.widths, strict=True):
        head = fit(column.head, width, right=column.right)
        gap = " " * GAP
        if column.id == sorted_by:
            gap = sign + " " * (GAP - 1)
        spans.append(Span(head + gap, "key" if column.id == sorted_by else "head"))
    return merged(spans)


def column_at(columns: Columns, x: int) -> str | None:
    """The column whose head stands at this cell."""
    left = LEAD
    for column, width in zip(columns.shown, columns.widths, strict=True):
        if left <= x < left + width + GAP:
            return column.id
        left += width + GAP
    return None


def instance_row(
    each: InstanceStatus,
    columns: Columns,
    badge: Badge,
    glyphs: Glyphs,
    *,
    selected: bool,
    marked: bool = False,
) -> Line:
    """One instance: pointer, badge, mark, cells."""
    spans = [
        Span(glyphs.pointer if selected else " ", "pointer"),
        Span(badge.letter, badge.ink),
        Span(f"{glyphs.marked} " if marked else "  ", "key"),
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
