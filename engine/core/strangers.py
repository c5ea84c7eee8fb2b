"""Programs that are not ours and hold PUs or GPUs: whom a plan meets, and in which words."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from engine.core.cpuset import CpuSet, NodeSet

_NO_PUS = CpuSet()

PINNED_BYTES, PINNED_PUS = 256 << 20, 0.1
"""Memory, or PUs kept busy on average, from which a pinned process counts: the smallest engine
has as much, a helper that somebody pinned has not."""
CONTAINED_BYTES, CONTAINED_PUS = 2 << 30, 0.5
"""The same for one that only its container's cpuset narrows: what else is in there is not pinned
to serve a model, so it has to have the size of one or to be at work."""
GPU_BYTES = 256 << 20
"""Of a GPU's memory: runtimes keep some of every GPU that they see, a desktop keeps little."""


@dataclass(frozen=True, slots=True)
class Stranger:
    """A running process that is not ours and holds PUs or GPUs."""

    pid: int
    name: str
    """The kernel's short name of it (`comm`), at most 15 characters."""
    uid: int
    user: str
    pus: CpuSet
    """What its threads are pinned to, together; empty where it is not pinned."""
    memory_nodes: NodeSet | None
    """The NUMA nodes that its memory can only come from; None where that is all, or not told."""
    gpus: tuple[int, ...]
    """Indexes of the GPUs whose memory it holds, as far as we may look."""
    threads: int
    rss_bytes: int
    """Resident memory, with its huge pages."""
    cpu_seconds: float
    """User and system time of all its threads since it started."""


def is_load(memory_bytes: int, busy_pus: float, *, contained: bool) -> bool:
    """Whether a narrowed process is worth keeping out of the way of.

    An engine between two requests uses no PU, so either memory or PUs are enough.
    """
    if contained:
        return memory_bytes >= CONTAINED_BYTES or busy_pus >= CONTAINED_PUS
    return memory_bytes >= PINNED_BYTES or busy_pus >= PINNED_PUS


def on(
    strangers: Iterable[Stranger], pus: CpuSet = _NO_PUS, gpus: Collection[int] = ()
) -> tuple[Stranger, ...]:
    """Those who hold any of these PUs or GPUs."""
    wanted = set(gpus)
    return tuple(each for each in strangers if each.pus & pus or wanted & set(each.gpus))


def held_pus(strangers: Iterable[Stranger]) -> CpuSet:
    """What they hold together."""
    return CpuSet(pu for each in strangers for pu in each.pus)


def holders(strangers: Iterable[Stranger], most: int = 3) -> str:
    """Such as `python3 (pid 812, alice) and 2 more`; those with the most memory are named."""
    ranked = sorted(strangers, key=lambda each: (-each.rss_bytes, each.pid))
    named = [f"{each.name} (pid {each.pid}, {each.user})" for each in ranked[:most]]
    if left := len(ranked) - len(named):
        named.append(f"{left} more")
    return " and ".join(filter(None, [", ".join(named[:-1]), *named[-1:]]))
