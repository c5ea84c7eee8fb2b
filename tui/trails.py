"""Figures of the last minutes, kept by the panel while it is open; a missing sample is a gap."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from engine.core.status import InstanceStatus, Snapshot

KEPT = 3600
"""Samples of each instance: an hour at one a second."""
BRIDGED_S = 2.5
"""A sample speaks for the time since the one before, up to this."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure that is drawn over time."""

    id: str
    name: str
    unit: str
    read: Callable[[InstanceStatus], float | None]
    decimals: int = 0
    top: float | None = None
    """The scale's upper end, where it has one of its own."""


def _share(value: float | None) -> float | None:
    return None if value is None else value * 100


METRICS = (
    Metric("out", "output", "tokens/s", lambda each: each.tokens_per_s.output, 1),
    Metric("itl", "ITL p50", "ms", lambda each: each.itl_ms.p50, 1),
    Metric("kv", "KV cache", "%", lambda each: _share(each.kv_cache_used), top=100.0),
    Metric("cpu", "CPU", "cores", lambda each: each.cpu_cores_used, 2),
)
Row = tuple[float, tuple[float | None, ...]]
"""When, and each metric's value."""


class Trails:
    """The last samples of every instance there is."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._rows: dict[str, deque[Row]] = {}

    def add(self, snapshot: Snapshot, at: float) -> None:
        """One more moment; instances that have left the list are forgotten."""
        names = {each.name for each in snapshot.instances}
        for name in self._rows.keys() - names:
            del self._rows[name]
        for each in snapshot.instances:
            rows = self._rows.setdefault(each.name, deque(maxlen=self._kept))
            rows.append((at, tuple(metric.read(each) for metric in METRICS)))

    def series(
        self, name: str, metric: Metric, *, now: float, step_s: float, steps: int
    ) -> list[float | None]:
        """The mean of each step up to now, oldest first; None where nothing is known."""
        at_metric = METRICS.index(metric)
        sums = [0.0] * steps
        counts = [0] * steps
        last = int(now // step_s)
        before: float | None = None
        for at, values in self._rows.get(name, ()):
            value, since, before = values[at_metric], before, at
            if value is None:
                continue
            if since is None or at - since > BRIDGED_S:
                since = at
            # Samples come a little early or late: one speaks for all steps since the last.
            own = int(at // step_s)
            for step in range(min(int(since // step_s) + 1, own), own + 1):
                index = steps - 1 - (last - step)
                if 0 <= index < steps:
                    sums[index] += value
                    counts[index] += 1
        return [total / many if many else None for total, many in zip(sums, counts, strict=True)]
