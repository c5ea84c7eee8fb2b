"""What one open GPU file tells of its client: memory and busy time (kernel's drm-usage-stats)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

NODE = re.compile(r"/dev/dri/((?:renderD|card)[0-9]+)$")
"""An open file that is a GPU; its name is `Gpu.drm_render` or `Gpu.drm_card`."""
_SIZE = re.compile(  # `drm-total-cycles-rcs` is no memory
    r"^drm-(resident|memory|total)-(?!cycles-)([^:\s]+):[ \t]*([0-9]{1,15})(?: (KiB|MiB|GiB))?$",
    re.M,
)
_TIME = re.compile(
    r"^drm-(engine|cycles|total-cycles)-(?!capacity-)([^:\s]+):[ \t]*([0-9]{1,20})(?: ns)?$", re.M
)
_CAPACITY = re.compile(r"^drm-engine-capacity-([^:\s]+):[ \t]*([0-9]{1,4})$", re.M)
_CLIENT = re.compile(r"^drm-client-id:[ \t]*([0-9]{1,20})$", re.M)
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_OWN = re.compile(r"(?:vram|local)[0-9]*")
"""Regions on the card: xe's and amdgpu's `vram0`, i915's `local0`."""
_CLASSES = {
    "rcs": "render",
    "ccs": "compute",
    "bcs": "copy",
    "vcs": "video",
    "vecs": "video-enhance",
}
"""xe's short words for what i915 spells out."""


@dataclass(frozen=True, slots=True)
class EngineTime:
    """Time of one class of a GPU's engines, in units of which `of` have passed; `of` is None
    where they are nanoseconds by the clock."""

    spent: int
    of: int | None = None
    capacity: int = 1
    """How many engines of this class there are."""


@dataclass(frozen=True, slots=True)
class DrmClient:
    """One client of a GPU's driver."""

    id: str | None
    """Of this GPU; None where an old kernel does not tell. Several files may be one client."""
    memory: Mapping[str, int] = field(default_factory=dict)
    """Region -> bytes."""
    engines: Mapping[str, EngineTime] = field(default_factory=dict)
    """Class (render, compute, copy, video, video-enhance) -> its time since the client began."""

    @property
    def memory_bytes(self) -> int | None:
        """Of all regions, those in the host's memory too; None where its driver does not tell."""
        return sum(self.memory.values()) if self.memory else None

    @property
    def card_bytes(self) -> int | None:
        """On the card; None where no region of it is told."""
        sizes = [size for region, size in self.memory.items() if _OWN.fullmatch(region)]
        return sum(sizes) if sizes else None


def parse_fdinfo(text: str) -> DrmClient | None:
    """/proc/PID/fdinfo/FD; None where that file is no GPU."""
    if "drm-driver:" not in text:
        return None
    memory: dict[str, tuple[int, int]] = {}
    for word, region, number, unit in _SIZE.findall(text):
        # What is resident is what it has now; `total` may never have been written to.
        rank = ("total", "memory", "resident").index(word)
        memory[region] = max(
            memory.get(region, (-1, 0)), (rank, int(number) * _UNITS[unit]), key=lambda one: one[0]
        )
    times: dict[str, dict[str, int]] = {}
    for word, name, number in _TIME.findall(text):
        times.setdefault(name, {})[word] = int(number)
    counts = {name: max(1, int(number)) for name, number in _CAPACITY.findall(text)}
    engines = {}
    for name, told in times.items():
        kind, capacity = _CLASSES.get(name, name), counts.get(name, 1)
        if "engine" in told:
            engines[kind] = EngineTime(told["engine"], None, capacity)
        elif {"cycles", "total-cycles"} <= told.keys():
            engines[kind] = EngineTime(told["cycles"], told["total-cycles"], capacity)
    client = _CLIENT.search(text)
    return DrmClient(
        client.group(1) if client else None,
        {region: size for region, (_, size) in memory.items()},
        engines,
    )


def busy_share(before: EngineTime, after: EngineTime, elapsed_s: float) -> float | None:
    """Share 0 to 1 of that class between two readings; None where that cannot be told."""
    spent = after.spent - before.spent
    if before.of is None or after.of is None:
        passed = elapsed_s * 1e9
    else:
        passed = after.of - before.of
    if spent < 0 or passed < 0:
        return None
    if spent == 0:
        return 0.0  # also on a card that sleeps, whose own clock stands
    if passed == 0:
        return None
    return min(1.0, spent / (passed * after.capacity))
