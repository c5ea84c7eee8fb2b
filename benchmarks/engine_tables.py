"""The engines' benchmark as tables (Markdown, readable as they are) and as one JSON object."""

import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.arms import INPUT_TOKENS, OUTPUT_TOKENS, Arm, Figures
from engine.bench.manifest import cpu_model

_DASH = "–"


def middle(found: Iterable[float | None]) -> float | None:
    """The median of what is known."""
    known = [one for one in found if one is not None]
    return statistics.median(known) if known else None


def of(arm: Arm, streams: int, figure: Callable[[Figures], float | None]) -> float | None:
    return middle(figure(one) for one in arm.figures.get(streams, ()))


def roofline(arm: Arm, bandwidth: float | None) -> float | None:
    """Bytes of weights that one stream reads a token / memory bandwidth, over the time a token
    takes."""
    itl_ms = of(arm, 1, lambda one: one.itl_ms)
    if not (arm.bytes_per_token and bandwidth and itl_ms):
        return None
    return arm.bytes_per_token / bandwidth / (itl_ms / 1e3)


def table(arms: Sequence[Arm], streams: Sequence[int], bandwidth: float | None) -> str:
    """A row for each arm that has figures, and why the others have none."""
    heads = ["engine", "start s", "RSS MB", "roofline"]
    heads += [f"tokens/s x{many}" for many in streams]
    heads += [f"TTFT ms x{many}" for many in streams]
    heads += [f"CPU ms/token x{many}" for many in streams]
    heads += ["waited"]
    rows = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    for arm in arms:
        if not arm.figures:
            continue
        waits = [one.waited for found in arm.figures.values() for one in found]
        rows.append(
            [
                arm.name,
                number(middle(arm.starts), 0),
                number(middle(arm.rss_mb), 0),
                percent(roofline(arm, bandwidth)),
                *(number(of(arm, many, lambda one: one.tokens_per_s), 1) for many in streams),
                *(number(of(arm, many, lambda one: one.ttft_ms), 0) for many in streams),
                *(number(of(arm, many, lambda one: one.cpu_ms_per_token), 1) for many in streams),
                percent(middle(waits)),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    lines = []
    for row in rows:
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"\n{arm.name}: no figures: {arm.why_not}" for arm in arms if arm.why_not]
    for arm in arms:
        if errors := sum(one.errors for found in arm.figures.values() for one in found):
            lines.append(f"\n{arm.name}: {errors} requests failed")
    return "\n".join(lines)


@dataclass
class Several:
    """Output tokens/s over all, turn by turn: one instance unpinned, and one on each core."""

    engine: str
    cores: int
    streams: int
    one: list[float] = field(default_factory=list)
    several: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        one, more = middle(self.one), middle(self.several)
        return more / one if one and more else None


def several_table(rows: Sequence[Several]) -> str:
    if not rows:
        return "One instance against several: nothing to compare here."
    heads = f"1 unpinned, tokens/s | {rows[0].cores} pinned, tokens/s | ratio"
    lines = [f"| engine, {rows[0].cores} cores | streams | {heads} |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        figures = f"{number(middle(row.one), 1)} | {number(middle(row.several), 1)}"
        lines.append(f"| {row.engine} | {row.streams} | {figures} | {number(row.ratio, 2)} |")
    return "\n".join(lines)


def number(value: float | None, digits: int) -> str:
    return _DASH if value is None else f"{value:,.{digits}f}"


def percent(value: float | None) -> str:
    return _DASH if value is None else f"{value:.0%}"


def machine_facts() -> dict[str, Any]:
    return {
        "processor": cpu_model(),
        "pus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "load_average": Path("/proc/loadavg").read_text().split()[:3],
    }


def as_json(
    arms: Sequence[Arm],
    rows: Sequence[Several],
    bandwidth: float | None,
    rounds: int,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """`slotdeck.benchmark-engines/1`; every turn's figures, so that others can judge."""
    return {
        "schema": "slotdeck.benchmark-engines/1",
        "machine": facts,
        "input_tokens": INPUT_TOKENS,
        "output_tokens": OUTPUT_TOKENS,
        "rounds": rounds,
        "bandwidth_bytes_per_s": bandwidth,
        "engines": [
            {
                "name": arm.name,
                "version": arm.version,
                "why_not": arm.why_not or None,
                "starts_s": arm.starts,
                "rss_mb": arm.rss_mb,
                "bytes_per_token": arm.bytes_per_token,
                "roofline": roofline(arm, bandwidth),
                "turns": [
                    {
                        "streams": many,
                        **{name: getattr(one, name) for name in Figures.__dataclass_fields__},
                    }
                    for many, found in arm.figures.items()
                    for one in found
                ],
            }
            for arm in arms
        ],
        "one_or_several": [{**vars(row), "ratio": row.ratio} for row in rows],
    }
