"""A report as text for a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.bench.values import Report, Schedule, TargetReport
from engine.core.goodput import Goodput
from engine.core.quantiles import Summary

DASH = "–"
GAP = "  "
CACHED_LIMIT = 0.05
"""Chat templates and beginning-of-text tokens are shared by all prompts, and do not matter."""


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
    names = ("", "target", *labels(targets))
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
    def latency(title: str, summaries: Sequence[Summary | None]) -> _Group:
        rows = []
        for one in summaries:
            known = (None,) * 4 if one is None else (one.mean, one.p50, one.p90, one.p99)
            rows.append(tuple(_figure(value, 1e3) for value in known))
        return _Group(title, ("mean", "p50", "p90", "p99"), tuple(rows))

    groups = [
        latency("TTFT ms", [t.ttft for t in targets]),
        latency("ITL ms", [t.itl for t in targets]),
        latency("TPOT ms", [t.tpot for t in targets]),
        latency("end to end ms", [t.e2e for t in targets]),
    ]
    if kept := [t.schedule for t in targets if t.schedule is not None]:
        since = [t.schedule for t in targets]
        groups += [
            latency("TTFT from schedule ms", [None if one is None else one.ttft for one in since]),
            latency(
                "end to end from schedule ms", [None if one is None else one.e2e for one in since]
            ),
        ]
    groups.append(
        _Group(
            "tokens/s",
            ("output", "total"),
            tuple(
                (_figure(t.output_tokens_per_s, 1.0), _figure(t.total_tokens_per_s, 1.0))
                for t in targets
            ),
        )
    )
    if any(t.goodput is not None for t in targets):
        groups.append(
            _Group("within limits", ("share", "requests/s"), tuple(map(_within, targets)))
        )
    groups += [
        _Group(
            "requests",
            ("rate/s" if kept else "streams", "finished", "errors"),
            tuple((_load(t), str(t.requests), str(t.errors)) for t in targets),
        ),
        _Group(
            "mean tokens",
            ("prompt", "answer"),
            tuple((_figure(t.prompt_tokens, 1.0), _figure(t.output_tokens, 1.0)) for t in targets),
        ),
    ]
    return groups


def _within(target: TargetReport) -> tuple[str, str]:
    good = target.goodput
    if good is None or good.share is None:
        return DASH, DASH
    return f"{good.share:.1%}", _figure(good.requests_per_s, 1.0)


def _load(target: TargetReport) -> str:
    if target.concurrency is not None:
        return str(target.concurrency)
    return DASH if target.rate is None else f"{target.rate:g}"


def told_load(target: TargetReport) -> str:
    if target.concurrency is None:
        return f"{_load(target)}/s"
    return "1 stream" if target.concurrency == 1 else f"{target.concurrency} streams"


def labels(targets: Sequence[TargetReport]) -> list[str]:
    """Names, with the load where a name was measured under several."""
    names = [target.name for target in targets]
    return [
        name if names.count(name) == 1 else f"{name} {told_load(target)}"
        for name, target in zip(names, targets, strict=True)
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
    notes = list(target.notes)
    if target.schedule is not None:
        notes += _of_schedule(target.schedule)
    if target.goodput is not None:
        notes += _of_limits(target.goodput)
    for label, summary, noun in (
        ("TTFT, TPOT, end to end", target.ttft, "requests"),
        ("ITL", target.itl, "gaps between tokens"),
    ):
        why = summary.why_missing(noun)
        if why is not None and not (target.notes and not summary.count and target.requests):
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


def _of_schedule(kept: Schedule) -> list[str]:
    notes = []
    if kept.held_back:
        notes.append(
            f"{kept.held_back} of {kept.sent} requests had to wait because {kept.max_in_flight} "
            "were under way: latencies from the schedule hold that wait, the others do not"
        )
    if kept.unfinished:
        notes.append(f"{kept.unfinished} requests had no end long after the window")
    told = [f"{kept.sent} sent"]
    if kept.sent_per_s is not None:
        told.append(f"{kept.sent_per_s:.2f}/s")
    if kept.gap_cv is not None:
        told.append(f"gap CV {kept.gap_cv:.3f}")
    if kept.lateness.p50 is not None:
        told.append(f"median {kept.lateness.p50 * 1e3:.2f} ms late")
    notes.append(
        f"{kept.arrival} arrivals: {', '.join(told)}, at most {kept.most_in_flight} at once"
    )
    return notes


def _of_limits(good: Goodput) -> list[str]:
    words = {"ttft": "TTFT", "itl": "longest gap", "tpot": "mean gap", "e2e": "end to end"}
    asked = [
        f"{words[name]} {limit * 1e3:g} ms"
        for name, limit in good.limits.told().items()
        if limit is not None
    ]
    missed = [f"{words[name]} by {count}" for name, count in good.missed.items()]
    if unanswered := good.of - good.judged:
        missed.append(f"all by {unanswered} without an answer")
    said = f"; missed: {', '.join(missed)}" if missed else ""
    return [f"within limits ({', '.join(asked)}): {good.met} of {good.of} requests{said}"]


def _merged(targets: tuple[TargetReport, ...]) -> list[str]:
    """Each note once, with the names of all targets that it is about."""
    about: dict[str, list[str]] = {}
    for label, target in zip(labels(targets), targets, strict=True):
        for note in _notes(target):
            about.setdefault(note, []).append(label)
    return [f"{', '.join(names)}: {note}" for note, names in about.items()]


def _client_line(report: Report) -> str:
    requests = sum(target.requests for target in report.targets)
    counted = "1 request" if requests == 1 else f"{requests:,} requests"
    counted += f" in {max(target.window_s for target in report.targets):.1f} s"
    client = report.client
    if not client.judged:
        return (
            f"Whether the load generator itself was the limit is not known; it used "
            f"{client.cpu_share:.0%} of a core, its start included. Measured on {counted}."
        )
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
