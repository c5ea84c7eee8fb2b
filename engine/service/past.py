"""The figures of the last minutes, so that a panel's plots do not start empty."""

from collections.abc import Iterable

from engine.core.status import InstanceStatus
from engine.core.trail import PastFigures, Trail

BRIDGED_S = 7.5
"""A rate speaks for all the time since the sample before, up to this; longer is a gap."""


class Past:
    """A ring for each instance on the list."""

    def __init__(self) -> None:
        self._trails: dict[str, Trail] = {}

    def add(self, now: float, instances: Iterable[InstanceStatus]) -> None:
        """One more sample of all instances; those that have left the list are forgotten."""
        kept: dict[str, Trail] = {}
        for each in instances:
            trail = kept[each.name] = self._trails.get(each.name) or Trail()
            since_s = None if trail.last is None else now - trail.last
            trail.take(each, now, since_s if since_s is not None and since_s <= BRIDGED_S else 0.0)
        self._trails = kept

    def told(self, now: float) -> PastFigures:
        """All that is known, for one client."""
        return PastFigures(
            rows={name: trail.packed(now) for name, trail in self._trails.items()},
            bytes_each=next((one.bytes_taken for one in self._trails.values()), 0),
        )
