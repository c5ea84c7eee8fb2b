"""A report as JSON and as text."""

from dataclasses import dataclass

from engine.bench.values import Report, TargetReport
from engine.core.quantiles import Summary

SCHEMA = "slotdeck.bench/1"
DASH = "–"
GAP = "  "
CACHED_LIMIT = 0.05
"""Chat templates and beginning-of-text tokens are shared by all prompts, and do not matter."""


def report_json(report: Report) -> dict[str, object]:
    """The `slotdeck.bench/1` object; times in ms, unknown values are None."""
    return {
        "schema": SCHEMA,
        "targets": [
            {
                "name": target.name,
                "url": target.url,
                "concurrency": target.concurrency,
                "rate": None,
                "requests": target.requests,
                "errors": target.errors,
                "ttft_ms": _summary_ms(target.ttft),
                "itl_ms": _summary_ms(target.itl),
                "tpot_ms": _summary_ms(target.tpot),
                "e2e_ms": _summary_ms(target.e2e),
                "output_tokens_per_s": _rounded(target.output_tokens_per_s, 1.0),
                "total_tokens_per_s": _rounded(target.total_tokens_per_s, 1.0),
            }
            for target in report.targets
        ],
        "client": {
            "cpu_share": round(report.client.cpu_share, 4),
            "runqueue_wait_share": _rounded(report.client.runqueue_wait_share, 1.0, 4),
            "limited": report.client.limited,
        },
        "manifest": report.manifest,
    }


def _summary_ms(summary: Summary) -> dict[str, float | None]:
    return {
        "mean": _rounded(summary.mean, 1e3),
        "p50": _rounded(summary.p50, 1e3),
        "p90": _rounded(summary.p90, 1e3),
        "p99": _rounded(summary.p99, 1e3),
    }


def _rounded(value: float | None, factor: float, digits: int = 3) -> float | None:
    return None if value is None else round(value * factor, digits)


@dataclass(frozen=True, slots=True)
class _Group:
    """Columns of one unit, under one title."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def lines(self) -> list[str]:
        """Title, column heads and rows, all of one width."""
        widths = [
            max(len(cell) for cell in column)
            for column in zip(self.columns, *self.rows, strict=True)
        ]
        widths[0] += max(0, len(self.title) - sum(widths) - len(GAP) * (len(widths) - 1))
        body = [
            GAP.join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
            for cells in (self.columns, *self.rows)
        ]
        return [self.title.rjust(len(body[0])), *body]


def report_text(report: Report, width: int) -> str:
    """Groups of columns side by side as far as `width` goes, then below each other."""
    targets = report.targets
    names = ("", "target", *(target.name for target in targets))
    first = [name.ljust(max(map(len, names))) for name in names]
    blocks: list[list[str]] = []
    for group in _groups(targets):
        lines = group.lines()
        if blocks and len(blocks[-1][0]) + 2 * len(GAP) + len(lines[0]) <= width:
            blocks[-1] = [a + 2 * GAP + b for a, b in zip(blocks[-1], lines, strict=True)]
        else:
            blocks.append([a + GAP + b for a, b in zip(first, lines, strict=True)])
    paragraphs = ["\n".join(line.rstrip() for line in block) for block in blocks]
    paragraphs.append("Lower is better for ms, higher for tokens/s.")
    notes = _merged(targets)
    if notes:
        paragraphs.append("\n".join(notes))
    paragraphs.append(_client_line(report))
    return "\n\n".join(paragraphs)


def _groups(targets: tuple[TargetReport, ...]) -> list[_Group]:
    def latency(title: str, pick: str) -> _Group:
        rows = []
        for target in targets:
            summary: Summary = getattr(target, pick)
            values = (summary.mean, summary.p50, summary.p90, summary.p99)
            rows.append(tuple(_figure(value, 1e3) for value in values))
        return _Group(title, ("mean", "p50", "p90", "p99"), tuple(rows))

    return [
        latency("TTFT ms", "ttft"),
        latency("ITL ms", "itl"),
        latency("TPOT ms", "tpot"),
        latency("end to end ms", "e2e"),
        _Group(
            "tokens/s",
            ("output", "total"),
            tuple(
                (_figure(t.output_tokens_per_s, 1.0), _figure(t.total_tokens_per_s, 1.0))
                for t in targets
            ),
        ),
        _Group(
            "requests",
            ("streams", "finished", "errors"),
            tuple((str(t.concurrency), str(t.requests), str(t.errors)) for t in targets),
        ),
        _Group(
            "mean tokens",
            ("prompt", "answer"),
            tuple((_figure(t.prompt_tokens, 1.0), _figure(t.output_tokens, 1.0)) for t in targets),
        ),
    ]


def _figure(value: float | None, factor: float) -> str:
    """About four digits; more would claim more than was measured."""
    if value is None:
        return DASH
    value *= factor
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _notes(target: TargetReport) -> list[str]:
    notes = []
    for label, summary, noun in (
        ("TTFT, TPOT, end to end", target.ttft, "requests"),
        ("ITL", target.itl, "gaps between tokens"),
    ):
        why = summary.why_missing(noun)
        if why is not None:
            notes.append(f"{DASH} {label}: {why}")
    if target.total_tokens_per_s is None and target.output_tokens_per_s is not None:
        notes.append(f"{DASH} total: the engine does not report the length of its prompts")
    if target.counted_by == "pieces":
        notes.append("tokens are counted by events with text: the engine reports no usage")
    if target.cached_share is not None and target.cached_share > CACHED_LIMIT:
        notes.append(
            f"{target.cached_share:.0%} of the prompt tokens came from a prefix cache, "
            "so TTFT is too short: give another seed"
        )
    if target.errors:
        notes.append(f"{target.errors} errors, the first: {target.first_error}")
    if target.gave_up_s is not None:
        notes.append(f"all streams gave up {target.gave_up_s:.1f} s into the window")
    if target.dropped:
        notes.append(f"latencies are of the newest requests; {target.dropped} older were let go")
    return notes


def _merged(targets: tuple[TargetReport, ...]) -> list[str]:
    """Each note once, with the names of all targets that it is about."""
    about: dict[str, list[str]] = {}
    for target in targets:
        for note in _notes(target):
            about.setdefault(note, []).append(target.name)
    return [f"{', '.join(names)}: {note}" for note, names in about.items()]


def _client_line(report: Report) -> str:
    requests = sum(target.requests for target in report.targets)
    counted = "1 request" if requests == 1 else f"{requests:,} requests"
    counted += f" in {max(target.window_s for target in report.targets):.1f} s"
    client = report.client
    if client.limited:
        return (
            f"The client was a limit: {' and '.join(client.limits)}. "
            f"True latencies may be shorter and true rates higher, by an unknown amount. "
            f"Measured on {counted}."
        )
    waited = client.runqueue_wait_share
    wait = "unknown" if waited is None else f"{waited:.1%}"
    return (
        f"The client was not the limit: {client.cpu_share:.0%} of a core, "
        f"run-queue wait {wait}. Measured on {counted}."
    )
