"""The figures of an engine alone: seconds of each step as its worker wrote them, summed up."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from engine import __version__
from engine.bench.manifest import cpu_model
from engine.core.errors import ControlError, UsageError
from engine.core.quantiles import Summary, summarize

SCHEMA = "slotdeck.offline/1"
DASH = "–"
RULES = {
    "first_token": "one forward pass over the whole prompts of the batch, and the choice of its "
    "tokens; no queue, no tokenizer, no HTTP",
    "next_token": "each further pass: one token of every sequence; the samples are the passes of "
    "all measured iterations",
    "output_tokens_per_s": "batch size x output length / mean seconds of an iteration",
    "percentiles": "linear between order statistics; p90 from 50 samples, p99 from 500",
    "prompts": "random token ids, seeded, others in each iteration; every answer has its full "
    "length",
    "decoding": "greedy; beam search is not measured",
}


class MeasuredBatch(msgspec.Struct, frozen=True):
    """What the worker wrote of one batch size."""

    batch_size: int
    first_token_s: list[float]
    next_token_s: list[float]
    cpu_s: float
    max_rss_bytes: int


class Measured(msgspec.Struct, frozen=True):
    """The worker's file."""

    load_s: float
    engine: dict[str, Any]
    batches: list[MeasuredBatch]


@dataclass(frozen=True, slots=True)
class OfflineLoad:
    """What is asked of the worker."""

    batch_sizes: tuple[int, ...] = (1,)
    input_len: int = 32
    output_len: int = 32
    iterations: int = 20
    """Measured ones, after the warm-up."""
    warmups: int = 3

    def __post_init__(self) -> None:
        counts = (*self.batch_sizes, self.input_len, self.output_len, self.iterations)
        if min(counts, default=0) < 1 or not self.batch_sizes or self.warmups < 0:
            raise UsageError(
                what="This cannot be measured",
                why="batch sizes, lengths and iterations must be at least 1, warm-ups 0",
                do="Change that value",
            )

    def words(self, out: Path) -> tuple[str, ...]:
        """The worker's command line for it."""
        return (
            *("--offline", str(out)),
            *("--batch-size", ",".join(map(str, self.batch_sizes))),
            *("--input-len", str(self.input_len)),
            *("--output-len", str(self.output_len)),
            *("--num-iter", str(self.iterations)),
            *("--num-warmup", str(self.warmups)),
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch size; times in seconds."""

    size: int
    first_token: Summary
    next_token: Summary
    iteration_s: float
    """Mean of first and next tokens together."""
    output_tokens_per_s: float
    cpu_s_per_token: float


@dataclass(frozen=True, slots=True)
class Place:
    """Which instance, and where it ran."""

    instance: str
    engine: str
    model: str
    slot: str
    pus: str
    memory_policy: str
    memory_nodes: str
    beside: tuple[str, ...] = ()
    """Running instances that share its PUs."""
    degraded: str = ""


@dataclass(frozen=True, slots=True)
class OfflineReport:
    """One instance's figures."""

    place: Place
    batches: tuple[Batch, ...]
    manifest: dict[str, Any]


def read_measured(text: bytes) -> Measured:
    """Raises ControlError where the file is not what a worker writes."""
    try:
        return msgspec.json.decode(text, type=Measured)
    except msgspec.DecodeError as error:
        raise ControlError(
            what="The engine's measurements cannot be read",
            why=str(error),
            do="Measure again; another release of slotdeck may have started the worker",
        ) from None


def offline_report(
    measured: Measured, place: Place, load: OfflineLoad, *, started_at: str
) -> OfflineReport:
    """Sums up, and keeps all that is needed to repeat it."""
    return OfflineReport(
        place=place,
        batches=tuple(_batch(one, load) for one in measured.batches),
        manifest={
            "started_at": started_at,
            "slotdeck": __version__,
            "client_python": platform.python_version(),
            "cpu_model": cpu_model(),
            "engine": measured.engine,
            "load_s": round(measured.load_s, 2),
            "max_rss_bytes": max((one.max_rss_bytes for one in measured.batches), default=None),
            "load": {
                "batch_sizes": list(load.batch_sizes),
                "input_len": load.input_len,
                "output_len": load.output_len,
                "iterations": load.iterations,
                "warmups": load.warmups,
            },
            "rules": RULES,
        },
    )


def _batch(measured: MeasuredBatch, load: OfflineLoad) -> Batch:
    iterations = len(measured.first_token_s)
    seconds = sum(measured.first_token_s) + sum(measured.next_token_s)
    tokens = measured.batch_size * load.output_len * iterations
    return Batch(
        size=measured.batch_size,
        first_token=summarize(measured.first_token_s),
        next_token=summarize(measured.next_token_s),
        iteration_s=seconds / iterations,
        output_tokens_per_s=tokens / seconds,
        cpu_s_per_token=measured.cpu_s / tokens,
    )


def offline_json(reports: Sequence[OfflineReport]) -> dict[str, Any]:
    """The `slotdeck.offline/1` object; times in ms, a percentile of too few samples is None."""
    return {
        "schema": SCHEMA,
        "instances": [
            {
                "name": report.place.instance,
                "engine": report.place.engine,
                "model": report.place.model,
                "slot": report.place.slot,
                "pus": report.place.pus,
                "memory": {
                    "policy": report.place.memory_policy,
                    "nodes": report.place.memory_nodes,
                },
                "beside": list(report.place.beside),
                "degraded": report.place.degraded or None,
                "batches": [
                    {
                        "batch_size": batch.size,
                        "first_token_ms": _summary(batch.first_token),
                        "next_token_ms": _summary(batch.next_token),
                        "iteration_ms": round(batch.iteration_s * 1e3, 3),
                        "output_tokens_per_s": round(batch.output_tokens_per_s, 3),
                        "cpu_ms_per_token": round(batch.cpu_s_per_token * 1e3, 3),
                    }
                    for batch in report.batches
                ],
                "manifest": report.manifest,
            }
            for report in reports
        ],
    }


def _summary(summary: Summary) -> dict[str, float | None]:
    values = {name: getattr(summary, name) for name in ("mean", "p50", "p90", "p99")}
    return {
        "count": summary.count,
        **{name: None if one is None else round(one * 1e3, 3) for name, one in values.items()},
    }


HEADER = ("batch", "first mean", "first p90", "next mean", "next p90", "next p99", "tokens/s")


def offline_rows(report: OfflineReport) -> list[tuple[str, ...]]:
    """One row a batch size, under `HEADER`; latencies in ms."""
    return [
        (
            str(batch.size),
            *(
                DASH if value is None else f"{value * 1e3:.1f}"
                for value in (
                    batch.first_token.mean,
                    batch.first_token.p90,
                    batch.next_token.mean,
                    batch.next_token.p90,
                    batch.next_token.p99,
                )
            ),
            f"{batch.output_tokens_per_s:.1f}",
        )
        for batch in report.batches
    ]


def headline(report: OfflineReport) -> str:
    """Who was measured, where and in which form."""
    place, engine = report.place, report.manifest["engine"]
    form = str(engine.get("dtype", ""))
    if engine.get("weight_only") not in (None, "none"):
        form += f" with {engine['weight_only']} weights"
    memory = place.memory_policy
    if place.memory_nodes:
        memory += f" {place.memory_nodes}"
    return (
        f"{place.instance}: {place.model} on {place.engine}, {form}, {engine.get('isa', '')}, "
        f"PU {place.pus}, memory {memory}"
    )


def notes(report: OfflineReport) -> list[str]:
    """What a reader must know beside the figures."""
    load = report.manifest["load"]
    engine = report.manifest["engine"]
    found = [
        f"{load['input_len']} tokens in, {load['output_len']} out, {load['iterations']} "
        f"iterations after {load['warmups']} of warm-up, greedy (beam search is not measured).",
        "Latencies in ms of the engine alone: no HTTP, no queue. Lower is better for ms, higher "
        "for tokens/s.",
    ]
    for label, pick in (("first", "first_token"), ("next", "next_token")):
        whys = {getattr(batch, pick).why_missing("samples") for batch in report.batches}
        found += [f"{DASH} {label}: {why}" for why in sorted(filter(None, whys))]
    if engine.get("load_format") == "dummy":
        found.append("The weights are random: speed is real, answers mean nothing.")
    if engine.get("path_reason") and engine.get("path") == "transformers":
        found.append(f"Run by transformers, not by the lean path: {engine['path_reason']}.")
    if report.place.beside:
        found.append(
            f"Running on the same PUs: {', '.join(report.place.beside)}. These figures are too "
            "slow by an unknown amount."
        )
    if report.place.degraded:
        found.append(f"Warning: {report.place.degraded}.")
    return found
