"""Figures of the last minutes: the service's own from before, then what the panel has seen."""

from dataclasses import dataclass

from engine.core.status import InstanceStatus, Snapshot
from engine.core.trail import FIGURES, PastFigures, Trail

KEPT = 3600
"""Samples of each instance: an hour at one a second."""
BRIDGED_S = 2.5
"""A sample speaks for the time since the one before, up to this."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure that is drawn over time."""

    id: str
    """As in `engine.core.trail.FIGURES`."""
    name: str
    unit: str
    decimals: int = 0
    top: float | None = None
    """The scale's upper end, where it has one of its own."""
    unknown: str = ""
    """The key of `InstanceStatus.unknown` that tells why there is none."""


METRICS = (
    Metric("out", "output", "tokens/s", 1, unknown="tokens_per_s"),
    Metric("itl", "ITL p50", "ms", 1, unknown="itl_ms"),
    Metric("kv", "KV cache", "%", top=100.0, unknown="kv_cache_used"),
    Metric("cpu", "CPU", "cores", 2, unknown="cpu_cores_used"),
    Metric("gpu", "GPU load", "%", top=100.0),
    Metric("vram", "GPU memory", "GiB", 1),
)
_OF_GPUS = ("gpu", "vram")
_PLACES = {figure: at for at, figure in enumerate(FIGURES)}


def metrics_of(each: InstanceStatus | None) -> tuple[Metric, ...]:
    """What is drawn of an instance: GPUs only where it has some."""
    if each is not None and each.gpu_use:
        return METRICS
    return tuple(metric for metric in METRICS if metric.id not in _OF_GPUS)


def why_unknown(each: InstanceStatus, metric: Metric) -> str:
    """Why there is none now."""
    if metric.id in _OF_GPUS:
        return "; ".join(dict.fromkeys(use.why for use in each.gpu_use if use.why))
    return each.unknown.get(metric.unknown, "")


class Trails:
    """The last samples of every instance there is."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._trails: dict[str, Trail] = {}

    def add(self, snapshot: Snapshot, at: float) -> None:
        """One more moment; instances that have left the list are forgotten."""
        kept: dict[str, Trail] = {}
        for each in snapshot.instances:
            trail = kept[each.name] = self._trails.get(each.name) or Trail(self._kept)
            since_s = None if trail.last is None else at - trail.last
            trail.take(each, at, since_s if since_s is not None and since_s <= BRIDGED_S else 0.0)
        self._trails = kept

    def fill(self, past: PastFigures, now: float) -> None:
        """Put what the service has kept before what was seen here."""
        for name, seen in list(self._trails.items()):
            ours = list(seen.rows())
            whole = Trail(self._kept)
            theirs = past.of(name, now)
            earlier = [row for row in theirs if not ours or row[0] < ours[0][0]]
            # The first sample here and the newest there may be one and the same.
            for row in (*earlier, *ours):
                whole.add(*row)
            self._trails[name] = whole

    def series(
        self, name: str, metric: Metric, *, now: float, step_s: float, steps: int
    ) -> list[float | None]:
        """The mean of each step up to now, oldest first; None where nothing is known."""
        place = _PLACES[metric.id]
        sums = [0.0] * steps
        counts = [0] * steps
        last = int(now // step_s)
        trail = self._trails.get(name)
        for at, over_s, values in trail.rows() if trail else ():
            value = values[place]
            if value is None:
                continue
            # Samples come a little early or late: one speaks for all steps since the last.
            own = int(at // step_s)
            for step in range(min(int((at - over_s) // step_s) + 1, own), own + 1):
                index = steps - 1 - (last - step)
                if 0 <= index < steps:
                    sums[index] += value
                    counts[index] += 1
        return [total / many if many else None for total, many in zip(sums, counts, strict=True)]
