"""A comparison's figures: times and rates, each in a table of its own."""

from math import log

from engine.core.comparing.telling import Judged, Paired, Ratio, Row
from tui.present.glyphs import Glyphs
from tui.present.ink import Line, Span, merged
from tui.present.text import fit
from tui.present.units import UNKNOWN, number

TIMES = {
    "ttft_ms": "TTFT, first token",
    "tpot_ms": "TPOT, per token",
    "itl_ms": "ITL, gap",
    "e2e_ms": "whole answer",
    "ttft_ms_p90": "TTFT p90",
    "tpot_ms_p90": "TPOT p90",
    "itl_ms_p90": "ITL p90",
}
RATES = {
    "output_tokens_per_s": "output tokens/s",
    "output_tokens_per_s_per_gpu": "tokens/s per GPU",
    "output_tokens_per_s_per_core": "tokens/s per core",
    "output_tokens_per_s_per_watt": "tokens/s per watt",
}
TABLES = (("ms, lower is better", TIMES), ("rates, higher is better", RATES))
"""Never in one column."""
VERDICT_INKS = {"better": "good", "worse": "error", "no difference": "text", "not enough": "muted"}
LABEL, FIGURE, RATIO, ENDS = 18, 8, 7, 15
MOST_OFF = log(2)
"""The bar's ends: half and double."""


def ratio_tables(newest: Paired, width: int, glyphs: Glyphs) -> list[Line]:
    """How B stands to A by now, with intervals that narrow as pairs come."""
    by_name = {one.name: one for one in newest.ratios}
    second = "A" if newest.is_aa else "B"
    room = width - LABEL - 2 * FIGURE - RATIO - ENDS - 2
    lines: list[Line] = []
    for title, metrics in TABLES:
        rows = [(words, by_name[name]) for name, words in metrics.items() if name in by_name]
        if not rows:
            continue
        lines += [(), _head(title, _scale(_odd(min(room, 41))) if room >= 11 else "", second)]
        for words, one in rows:
            ends = UNKNOWN if one.ci95 is None else f"{one.ci95[0]:.3f}–{one.ci95[1]:.3f}"
            row = _figures(words, one.a, one.b, one.ratio, ends)
            tail = _bar(one, _odd(min(room, 41)), glyphs) if room >= 11 else ()
            lines.append((*row, *tail))
    return lines


def _head(title: str, last: str, second: str = "B") -> Line:
    cells = (
        f" {fit(title, LABEL + 6)}"[: LABEL + 7],
        f"{'A':>{FIGURE - 6}}{second:>{FIGURE}}{f'{second}/A':>{RATIO}}{'95 % interval':>{ENDS}}",
    )
    return (Span(cells[0], "head"), Span(cells[1], "head"), Span(f"  {last}", "faint"))


def _figures(
    words: str, a: float | None, b: float | None, ratio: float | None, ends: str
) -> tuple[Span, ...]:
    return (
        Span(f" {fit(words, LABEL)}", "text"),
        Span(f"{_figure(a):>{FIGURE}}{_figure(b):>{FIGURE}}", "number"),
        Span(f"{UNKNOWN if ratio is None else f'{ratio:.3f}':>{RATIO}}", "title"),
        Span(f"{ends:>{ENDS}}", "muted"),
    )


def _odd(room: int) -> int:
    """Cells of a bar that has a middle, two cells away from the figures."""
    return room - 2 - (room % 2 == 0)


def _scale(width: int) -> str:
    side = width // 2
    return f"{'half':<{side}}1{'double':>{side}}" if side > len("double") else "1".center(width)


def _bar(one: Ratio, width: int, glyphs: Glyphs) -> tuple[Span, ...]:
    """The interval between half and double; green where all of it is on B's good side."""
    middle = width // 2

    def at(ratio: float) -> int:
        off = max(-1.0, min(1.0, log(ratio) / MOST_OFF))
        return middle + round(off * middle)

    low, high = one.ci95 or (one.ratio, one.ratio)
    ink = "muted"
    if one.ci95 is not None and not low <= 1 <= high:
        ink = "good" if (high < 1) == (one.better == "lower") else "error"
    cells = [Span(" ")] * width
    cells[middle] = Span(glyphs.down, "faint")
    for index in range(at(low), at(high) + 1):
        cells[index] = Span(glyphs.across, ink)
    cells[at(one.ratio)] = Span(glyphs.marks["ready"], ink)
    return merged((Span("  "), *cells))


def verdict_tables(judged: Judged) -> list[Line]:
    """What is said of B in the end."""
    rows = {row.name: row for row in judged.metrics if row.ratio is not None}
    lines: list[Line] = []
    for title, metrics in TABLES:
        mine = [(words, rows[name]) for name, words in metrics.items() if name in rows]
        if mine:
            lines += [(), _head(title, "verdict of B"), *(_verdict(*each) for each in mine)]
    return lines


def _verdict(words: str, row: Row) -> Line:
    ends = UNKNOWN if row.ci95 is None else f"{row.ci95[0]:.3f}–{row.ci95[1]:.3f}"
    ink = VERDICT_INKS.get(row.verdict, "text")
    return (*_figures(words, row.a, row.b, row.ratio, ends), Span(f"  {row.verdict}", ink))


def _figure(value: float | None) -> str:
    """Four digits or so, whatever the size."""
    if value is None:
        return UNKNOWN
    return number(value, 0 if value >= 1000 else 1 if value >= 100 else 2)
