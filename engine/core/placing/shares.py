"""Free cores divided among those who take what is left: `auto` wishes and GPUs."""

from collections.abc import Iterable, Mapping, Sequence

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.placing.memory_nodes import nearest
from engine.core.topology import Core, Machine

NO_NODE = -1
"""Stands for the whole machine where the kernel tells no NUMA nodes."""


def home(core: Core) -> int:
    """The NUMA node that a core is counted with."""
    return min(core.numa_nodes.pus, default=NO_NODE)


def free_cores(machine: Machine, held: Iterable[int]) -> dict[int, list[Core]]:
    """By NUMA node, the cores with a usable PU of which nobody holds any sibling."""
    taken = frozenset(held)
    usable = machine.pus.usable.pus
    free: dict[int, list[Core]] = {}
    for core in machine.cores:  # the plan's innermost loop: plain sets
        if taken.isdisjoint(core.pus.pus) and not usable.isdisjoint(core.pus.pus):
            free.setdefault(home(core), []).append(core)
    return free


def core_nodes(machine: Machine) -> dict[int | None, int | None]:
    """By the NUMA node of a GPU the node whose cores feed it: the nearest with usable ones."""
    usable = machine.pus.usable
    homes = NodeSet({home(core) for core in machine.cores if core.pus & usable} - {NO_NODE})
    return {
        node: node
        if node is None or node in homes or not homes
        else _nearest(machine, node, homes)
        for node in {gpu.numa_node for gpu in machine.gpus}
    }


def _nearest(machine: Machine, node: int, homes: NodeSet) -> int:
    return nearest(machine, NodeSet([node]), homes)


def gpu_share(
    machine: Machine,
    wanted: CpuSet,
    gpus_taken: Iterable[int],
    free: Mapping[int, Sequence[Core]],
    nodes: Mapping[int | None, int | None],
) -> tuple[Core, ...]:
    """Free cores of the nodes that feed the wanted GPUs, a share left for each free GPU there."""
    taken = CpuSet(gpus_taken)
    mine: dict[int | None, int] = {}
    rivals: dict[int | None, int] = {}
    for gpu in machine.gpus:
        node = nodes[gpu.numa_node]
        if gpu.index in wanted:
            mine[node] = mine.get(node, 0) + 1
        elif gpu.index not in taken:
            rivals[node] = rivals.get(node, 0) + 1
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


def divided(cores: Sequence[Core], parts: int) -> list[tuple[Core, ...]]:
    """So many shares, as even as can be, the larger ones first."""
    each, rest = divmod(len(cores), parts)
    shares: list[tuple[Core, ...]] = []
    at = 0
    for part in range(parts):
        size = each + (part < rest)
        shares.append(tuple(cores[at : at + size]))
        at += size
    return shares
