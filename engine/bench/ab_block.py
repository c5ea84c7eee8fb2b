"""One block: one arm under load for a while, and its figures over all of the arm's instances."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from engine.bench import runner
from engine.bench.ab_clocks import GpuReadings, HardwareWatch
from engine.bench.values import Load, Progress, Report, Target, TargetReport
from engine.core.comparing.values import Block, latency_figures, rate_figures
from engine.core.cpuset import CpuSet
from engine.core.quantiles import Summary

LATENCIES = ("ttft", "tpot", "itl", "e2e")
POOLED = (
    "of the arm's instances: medians weighted by their requests (ITL: gaps), rates summed; "
    "percentiles only where the arm is one instance"
)


@dataclass(frozen=True, slots=True)
class Up:
    """An arm that is ready for load."""

    targets: tuple[Target, ...]
    pus: CpuSet
    gpus: tuple[int, ...] = ()
    cores: int = 0
    """Physical ones, of its PUs."""
    packages: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Streams:
    """The same load on both arms, however many instances each has."""

    in_all: int
    requests: int | None

    @classmethod
    def of(cls, wanted: int, requests: int | None, instances: Sequence[int]) -> "Streams":
        """The smallest numbers from `wanted` on that every arm can share out evenly."""
        step = math.lcm(*instances)

        def even(count: int) -> int:
            return -(-count // step) * step

        return cls(even(wanted), None if requests is None else even(requests))


async def measure(
    arm: str,
    up: Up,
    load: Load,
    *,
    client_pus: frozenset[int] | None,
    read_gpus: GpuReadings | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> tuple[Block, Report]:
    """Raises EngineUnreachable when no instance of the arm answers."""
    watch = HardwareWatch(up.pus, up.packages, up.gpus, read_gpus=read_gpus)

    def progressed(progress: Progress) -> None:
        watch.on_progress(progress)
        if on_progress is not None:
            on_progress(progress)

    started_s = time.monotonic()
    try:
        report = await runner.run(up.targets, load, on_progress=progressed, client_pus=client_pus)
    finally:
        await watch.finish()
    return block_of(arm, started_s, up, report, watch), report


def block_of(arm: str, started_s: float, up: Up, report: Report, watch: HardwareWatch) -> Block:
    """The report of all its instances as one block."""
    targets = report.targets
    rate = total([one.output_tokens_per_s for one in targets])
    errors = [one.first_error for one in targets if one.errors]
    limits = report.client.limits
    return Block(
        arm=arm,
        started_s=started_s,
        metrics={
            **figures(targets),
            **rate_figures(rate, gpus=len(up.gpus), cores=up.cores, watts=watch.watts),
            "total_tokens_per_s": total([one.total_tokens_per_s for one in targets]),
        },
        requests=sum(one.requests for one in targets),
        errors=sum(one.errors for one in targets),
        first_error=errors[0] if errors else None,
        clocks_mhz=watch.clocks_mhz,
        temperature_c=watch.temperature_c,
        throttled=watch.throttled,
        client_limited=" and ".join(limits) if limits else None,
    )


def figures(targets: Sequence[TargetReport]) -> dict[str, float | None]:
    """Latencies in ms."""
    found: dict[str, float | None] = {}
    for name in LATENCIES:
        found |= latency_figures(name, pooled([getattr(one, name) for one in targets]))
    return found


def pooled(summaries: Sequence[Summary]) -> Summary:
    """Of several instances; a mean of percentiles would be none, so that those stay unknown."""
    if len(summaries) == 1:
        return summaries[0]
    count = sum(one.count for one in summaries)
    halves = [(one.p50, one.count) for one in summaries if one.p50 is not None]
    means = [(one.mean, one.count) for one in summaries if one.mean is not None]
    return Summary(count, _weighted(means), _weighted(halves), None, None)


def _weighted(values: Sequence[tuple[float, int]]) -> float | None:
    return fmean([one for one, _ in values], [count for _, count in values]) if values else None


def total(rates: Sequence[float | None]) -> float | None:
    """None where one of them is not known: a part is not the whole."""
    known = [one for one in rates if one is not None]
    return math.fsum(known) if known and len(known) == len(rates) else None
