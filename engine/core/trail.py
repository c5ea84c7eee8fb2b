"""Figures of an instance over the last minutes, in a ring of fixed size, with its gaps."""

import math
import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from engine.core.status import InstanceStatus

KEPT = 900
"""Samples of each instance: 15 minutes while somebody watches, over an hour while nobody does."""

Row = tuple[float, float, tuple[float | None, ...]]
"""When, for how many seconds before it speaks, and each figure's value."""


def _share(value: float | None) -> float | None:
    return None if value is None else value * 100


def _vram(each: InstanceStatus) -> float | None:
    sizes = [one.memory_bytes for one in each.gpu_use if one.memory_bytes is not None]
    return sum(sizes) / (1 << 30) if sizes else None


def _gpu_busy(each: InstanceStatus) -> float | None:
    busy = [one.busy for one in each.gpu_use if one.busy is not None]
    return 100 * sum(busy) / len(busy) if busy else None


FIGURES: dict[str, Callable[[InstanceStatus], float | None]] = {
    "out": lambda each: each.tokens_per_s.output,
    "itl": lambda each: each.itl_ms.p50,
    "kv": lambda each: _share(each.kv_cache_used),
    "cpu": lambda each: each.cpu_cores_used,
    "gpu": _gpu_busy,
    "vram": _vram,
}
"""What is kept: output tokens/s, ITL p50 in ms, KV cache in %, CPU in cores, load of its GPUs in %
(their mean) and their memory in GiB."""


class Trail:
    """The newest `kept` rows; memory is taken once and stays the same."""

    def __init__(self, kept: int = KEPT, figures: int = len(FIGURES)) -> None:
        self._kept = kept
        self._width = 1 + figures
        self._times = array("d", bytes(8 * kept))
        self._values = array("f", bytes(4 * kept * self._width))
        self._count = 0
        """Of all rows that ever came; the next one takes the place after."""

    @property
    def bytes_taken(self) -> int:
        """Of memory, however many rows there are."""
        return sum(len(part) * part.itemsize for part in (self._times, self._values))

    def add(self, at: float, over_s: float, values: Sequence[float | None]) -> None:
        """One more moment, later than those before."""
        place = self._count % self._kept
        self._times[place] = at
        first = place * self._width
        row = (over_s, *(math.nan if value is None else value for value in values))
        self._values[first : first + self._width] = array("f", row)
        self._count += 1

    def take(self, each: InstanceStatus, at: float, over_s: float) -> None:
        """The figures of a snapshot."""
        self.add(at, over_s, [read(each) for read in FIGURES.values()])

    @property
    def last(self) -> float | None:
        """When the newest row was."""
        return self._times[(self._count - 1) % self._kept] if self._count else None

    def rows(self) -> Iterator[Row]:
        """Oldest first."""
        for number in range(max(0, self._count - self._kept), self._count):
            place = number % self._kept
            first = place * self._width
            over_s, *values = self._values[first : first + self._width]
            yield self._times[place], over_s, tuple(None if v != v else v for v in values)

    def packed(self, now: float) -> bytes:
        """Little-endian 32-bit floats, row after row: age in seconds, the seconds it speaks for,
        each figure; NaN is a gap."""
        numbers: list[float] = []
        for at, over_s, values in self.rows():
            numbers += (now - at, over_s, *(math.nan if v is None else v for v in values))
        return struct.pack(f"<{len(numbers)}f", *numbers)


@dataclass(frozen=True, slots=True)
class PastFigures:
    """What the service has kept of the last minutes."""

    figures: tuple[str, ...] = tuple(FIGURES)
    """Which, in the order of a row."""
    rows: dict[str, bytes] = field(default_factory=dict)
    """Instance -> its rows as `Trail.packed` writes them."""
    bytes_each: int = 0
    """Memory that the service keeps for each instance."""

    def of(self, name: str, now: float) -> Iterator[Row]:
        """An instance's rows with the figures that we know, oldest first."""
        width = 2 + len(self.figures)
        data = self.rows.get(name, b"")
        places = [self.figures.index(one) if one in self.figures else None for one in FIGURES]
        for first in range(0, len(data) - width * 4 + 1, width * 4):
            age, over_s, *told = struct.unpack_from(f"<{width}f", data, first)
            values = (math.nan if place is None else told[place] for place in places)
            yield now - age, over_s, tuple(None if value != value else value for value in values)
