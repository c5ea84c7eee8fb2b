"""Free cores divided among those who take what is left: `auto` wishes and GPUs."""

from collections.abc import Iterable, Mapping, Sequence

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.topology import Core, Machine

NO_NODE = -1
"""Stands for the whole machine where the kernel tells no NUMA nodes."""


def home(core: Core) -> int:
    """The NUMA node that a core is counted with."""
    return min(core.numa_nodes) if core.numa_nodes else NO_NODE


def free_cores(machine: Machine, held: Iterable[int]) -> dict[int, list[Core]]:
    """By NUMA node, the cores with a usable PU of which nobody holds any sibling."""
    taken = CpuSet(held)
    free: dict[int, list[Core]] = {}
    for core in machine.cores:
        if core.pus & machine.pus.usable and not core.pus & taken:
            free.setdefault(home(core), []).append(core)
    return free


def node_for(free: Mapping[int, Sequence[Core]], cores: int, near_memory: NodeSet) -> int | None:
    """The node with most free cores, and at least `cores`; among equals one with memory."""
    fits = [node for node in free if len(free[node]) >= cores]
    return max(fits, key=lambda node: (len(free[node]), node in near_memory, -node), default=None)


def even_shares(
    free: Mapping[int, Sequence[Core]], wanted: int, near_memory: NodeSet
) -> list[tuple[Core, ...]]:
    """At most `wanted` shares, each inside one NUMA node, the smallest as large as can be.

    Each share in turn joins the node where the shares stay largest; then every node is divided
    among its own without a rest. Fewer come back when there are fewer cores than that.
    """
    order: list[int] = []
    counts = dict.fromkeys(free, 0)
    while len(order) < wanted:
        roomy = [node for node in free if counts[node] < len(free[node])]
        if not roomy:
            break
        node = max(
            roomy,
            key=lambda node: (
                len(free[node]) / (counts[node] + 1),
                node in near_memory,
                -node,
            ),
        )
        counts[node] += 1
        order.append(node)
    parts = {node: _divided(free[node], counts[node]) for node in free if counts[node]}
    return [parts[node].pop(0) for node in order]


def gpu_share(
    machine: Machine, wanted: CpuSet, gpus_taken: Iterable[int], free: Mapping[int, Sequence[Core]]
) -> tuple[Core, ...]:
    """Free cores of the wanted GPUs' nodes, a share left for each free GPU beside them."""
    taken = CpuSet(gpus_taken)
    mine: dict[int | None, int] = {}
    rivals: dict[int | None, int] = {}
    for gpu in machine.gpus:
        if gpu.index in wanted:
            mine[gpu.numa_node] = mine.get(gpu.numa_node, 0) + 1
        elif gpu.index not in taken:
            rivals[gpu.numa_node] = rivals.get(gpu.numa_node, 0) + 1
    chosen: list[Core] = []
    for node, count in mine.items():
        if node is None:
            near = [core for cores in free.values() for core in cores if core not in chosen]
            others = sum(rivals.values())
        else:
            near = [core for core in free.get(node, ()) if core not in chosen]
            others = rivals.get(node, 0)
        chosen += near[: max(1, len(near) * count // (count + others))]
    order = {core: position for position, core in enumerate(machine.cores)}
    return tuple(sorted(chosen, key=order.__getitem__))


def _divided(cores: Sequence[Core], parts: int) -> list[tuple[Core, ...]]:
    each, rest = divmod(len(cores), parts)
    shares: list[tuple[Core, ...]] = []
    at = 0
    for part in range(parts):
        size = each + (part < rest)
        shares.append(tuple(cores[at : at + size]))
        at += size
    return shares
