"""A comparison in words: a line per pair as it runs, and a table at the end."""

from collections.abc import Mapping, Sequence
from math import exp, expm1, fsum, log

from engine.bench.ab_texts import Texts
from engine.core.comparing.design import LEVEL
from engine.core.comparing.estimate import Estimate
from engine.core.comparing.judge import log_ratios, noise_floor
from engine.core.comparing.telling import Ratio
from engine.core.comparing.values import METRICS, Comparison, Metric, Outcome, Pair, Void
from engine.core.comparing.void import sift

DASH = "–"
HEADER = ("METRIC", "UNIT", "A", "B", "B/A", "95 % INTERVAL", "VERDICT OF B", "SEES FROM")
LEFT = frozenset({"METRIC", "UNIT", "VERDICT OF B"})
_SHORT = {"output_tokens_per_s": "tokens/s", "ttft_ms": "TTFT", "tpot_ms": "TPOT"}


def so_far(
    pairs: Sequence[Pair], metrics: Sequence[str], aa: Sequence[Pair] = ()
) -> tuple[Ratio, ...]:
    """Ratios with the plain interval that narrows as pairs come: no verdict yet."""
    valid, quiet = sift(pairs)[0], sift(aa)[0]
    found = []
    for name in metrics:
        metric = METRICS[name]
        logs = log_ratios(valid, metric)
        if not logs:
            continue
        estimate = Estimate.of_pairs(logs)
        ends = estimate.interval(LEVEL) if estimate else None
        floor = noise_floor(quiet, metric)
        mean = fsum(logs) / len(logs)
        b = fsum(log(pair.b.figure(metric) or 1.0) for pair in _having(valid, metric)) / len(logs)
        found.append(
            Ratio(
                name=name,
                unit=metric.unit,
                better=metric.better.value,
                n=len(logs),
                a=exp(b - mean),
                b=exp(b),
                ratio=exp(mean),
                ci95=None if ends is None else (exp(ends[0]), exp(ends[1])),
                noise_floor=None if floor is None else expm1(floor),
            )
        )
    return tuple(found)


def _having(pairs: Sequence[Pair], metric: Metric) -> list[Pair]:
    return [
        pair
        for pair in pairs
        if pair.a.figure(metric) is not None and pair.b.figure(metric) is not None
    ]


def running(pairs: Sequence[Pair], metrics: Sequence[str]) -> str:
    """The same as one line."""
    void = sift(pairs)[1]
    told = []
    for one in so_far(pairs, metrics):
        ends = "" if one.ci95 is None else f" ({one.ci95[0]:.3f}–{one.ci95[1]:.3f})"
        told.append(f"{_SHORT.get(one.name, one.name)} ×{one.ratio:.3f}{ends}")
    if void and void[-1].pair == len(pairs):
        told.append(f"void: {void[-1].why}")
    return "  ".join(told) or "no valid pair yet"


def outcome_text(outcome: Outcome, texts: Texts | None = None) -> str:
    """The sentence first, then what it rests on."""
    parts = [outcome.sentence]
    if shown := [row for row in outcome.comparisons if row.ratio is not None]:
        parts.append("\n".join(_table([_cells(row) for row in shown])))
        parts.append(
            "B/A is a ratio within one row, whose unit stands beside it; lower is better for ms, "
            "higher for rates.\n"
            "SEES FROM: a true difference of this size would have been seen 4 times in 5."
        )
    if notes := _notes(outcome.comparisons):
        parts.append("\n".join(notes))
    parts.append("\n".join(_counted(outcome)))
    if texts is not None:
        parts.append(texts.told())
    parts.append("\n".join(_manifest(outcome.manifest)))
    return "\n\n".join(part for part in parts if part)


def _cells(row: Comparison) -> tuple[str, ...]:
    interval = DASH if row.ci95 is None else f"{row.ci95[0]:.3f} to {row.ci95[1]:.3f}"
    sees = DASH if row.smallest_detectable is None else percent(row.smallest_detectable)
    return (
        row.name,
        row.metric.unit,
        figure(row.a),
        figure(row.b),
        DASH if row.ratio is None else f"{row.ratio:.3f}",
        interval,
        str(row.verdict.value),
        sees,
    )


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = [HEADER, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    return [
        "  ".join(
            cell.ljust(width) if title in LEFT else cell.rjust(width)
            for cell, width, title in zip(line, widths, HEADER, strict=True)
        ).rstrip()
        for line in lines
    ]


def _notes(rows: Sequence[Comparison]) -> list[str]:
    """Each reason once, with the rows that it is about."""
    about: dict[str, list[str]] = {}
    for row in rows:
        if row.why is not None:
            about.setdefault(row.why, []).append(row.name)
    return [f"{DASH} {', '.join(names)}: {why}" for why, names in about.items()]


def _counted(outcome: Outcome) -> list[str]:
    if not outcome.paired:
        runs = (
            "Runs measured apart: weaker than pairs, because whatever changed between them counts"
        )
        return [f"{runs} as a difference.", *_voids(outcome.void, "block")]
    valid = outcome.pairs - len(outcome.void)
    lines = [f"{valid} of {outcome.pairs} pairs are valid; {outcome.stop or 'it was ended'}."]
    lines += _voids(outcome.void, "pair")
    if outcome.noise_floor is not None:
        lines.append(
            f"Noise floor: A against itself came out {percent(outcome.noise_floor)} apart at "
            f"most, over {outcome.aa_pairs - len(outcome.aa_void)} A/A pairs."
        )
    elif outcome.aa_pairs:
        lines.append(f"Noise floor: not known from {outcome.aa_pairs} A/A pairs.")
    return [*lines, *_voids(outcome.aa_void, "A/A pair")]


def _voids(void: Sequence[Void], noun: str) -> list[str]:
    return [f"  {noun} {one.pair} is void: {one.why}" for one in void]


def _manifest(manifest: Mapping[str, object]) -> list[str]:
    lines = []
    for arm in ("a", "b"):
        told = manifest.get(f"arm_{arm}")
        if isinstance(told, Mapping):
            models = {
                " ".join(str(one[key]) for key in ("engine", "model", "dtype")).replace("  ", " ")
                + ("" if one["weight_only"] == "none" else f" {one['weight_only']}")
                for one in told.get("wishes", ())
            }
            lines.append(f"{arm.upper()}, {told.get('layout')}: {', '.join(sorted(models))}")
            lines += [f"  {one}" for one in told.get("instances", ())]
    load = manifest.get("load")
    if isinstance(load, Mapping):
        streams = "1 stream" if load["concurrency"] == 1 else f"{load['concurrency']} streams"
        lines.append(
            f"Load of each arm: {streams}, about {load['input_len']} tokens "
            f"in, {load['output_len']} out, seed {load['seed']}, temperature 0."
        )
    clocks = manifest.get("clocks_mhz")
    if isinstance(clocks, Mapping):
        for arm, devices in clocks.items():
            told = ", ".join(f"{device} {mhz:.0f} MHz" for device, mhz in devices.items())
            lines.append(f"Clocks of {arm.upper()}: {told}.")
    elif "load" in manifest:
        lines.append("Clocks: this machine does not tell.")
    about = [manifest.get("cpu_model"), manifest.get("started_at")]
    version = manifest.get("slotdeck")
    words = [f"slotdeck {version}" if version else None, *about]
    if any(words):
        lines.append(", ".join(str(one) for one in words if one) + ".")
    return lines


def figure(value: float | None) -> str:
    """About four digits; more would claim more than was measured."""
    if value is None:
        return DASH
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def percent(share: float) -> str:
    """With one digit where the share is small."""
    return f"{share * 100:.1f} %" if share < 0.0995 else f"{share * 100:.0f} %"
