"""The machine as the map shows it: packages, in them NUMA nodes, in them cores and GPUs."""

from dataclasses import dataclass

from engine.core.cpuset import CpuSet
from engine.core.errors import SlotError
from engine.core.slot import Slot, cores_of
from engine.core.topology import Machine


@dataclass(frozen=True, slots=True)
class Block:
    """A NUMA node's part in one package; a node that spans packages has a block in each."""

    node: int | None
    cores: tuple[int, ...]
    """Indexes into `Machine.cores`, which is also how slots count them."""
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A package, or what belongs to none."""

    package: int | None
    blocks: tuple[Block, ...]


def machine_groups(machine: Machine) -> tuple[Group, ...]:
    """Every core, NUMA node and GPU once (a spanning node once for each package)."""
    node_of_pu = {pu: node.os_index for node in reversed(machine.numa_nodes) for pu in node.cpus}
    cores: dict[tuple[int | None, int | None], list[int]] = {}
    for index, core in enumerate(machine.cores):
        first = next(iter(core.pus), -1)
        cores.setdefault((core.package, node_of_pu.get(first)), []).append(index)
    gpus: dict[int | None, list[int]] = {}
    known = {node.os_index for node in machine.numa_nodes}
    for gpu in machine.gpus:
        place = gpu.numa_node if gpu.numa_node in known else None
        gpus.setdefault(place, []).append(gpu.index)

    keys: dict[tuple[int | None, int | None], None] = {}
    for node in machine.numa_nodes:
        homes = [key for key in cores if key[1] == node.os_index]
        for key in homes or [(next(iter(node.packages), None), node.os_index)]:
            keys[key] = None
    for key in cores:
        keys.setdefault(key)
    if gpus.get(None):
        keys.setdefault((None, None))

    order: dict[int | None, list[Block]] = {p.os_index: [] for p in machine.packages}
    for package, node_index in keys:
        own_gpus = tuple(gpus.pop(node_index, ()))
        block = Block(node_index, tuple(cores.get((package, node_index), ())), own_gpus)
        order.setdefault(package, []).append(block)
    return tuple(Group(package, tuple(blocks)) for package, blocks in order.items() if blocks)


def slot_pus(machine: Machine, slot: str) -> CpuSet:
    """The PUs that a slot covers; none for GPUs, and where the slot is none of this machine."""
    try:
        parsed = Slot.parse(slot)
        if parsed.kind in ("gpu", "auto", "each"):
            return CpuSet()
        if parsed.kind == "pu":
            return parsed.indexes & machine.pus.online
        cores = cores_of(parsed, machine)
        if parsed.kind == "numa" and parsed.cores is None:
            # A node's PUs are the kernel's word, also where a core is said to span nodes.
            nodes = [machine.numa_node(index) for index in parsed.indexes]
            return CpuSet(pu for node in nodes if node for pu in node.cpus)
    except SlotError:
        return CpuSet()
    return CpuSet(pu for core in cores for pu in core.pus)


def node_of(machine: Machine, slot: str) -> int | None:
    """The NUMA node that a slot is in, or begins in; None where that is not told."""
    kind, _, rest = slot.partition(":")
    if kind == "gpu":
        index = rest.partition(",")[0].partition("-")[0]
        nodes = [gpu.numa_node for gpu in machine.gpus if str(gpu.index) == index]
        return nodes[0] if nodes else None
    if kind == "numa" and rest.isdigit():
        return int(rest) if machine.numa_node(int(rest)) else None
    first = next(iter(slot_pus(machine, slot)), None)
    if first is None:
        return None
    return next((node.os_index for node in machine.numa_nodes if first in node.cpus), None)


def package_of(machine: Machine, slot: str) -> int | None:
    """The package that a slot is in, or begins in."""
    kind, _, rest = slot.partition(":")
    if kind == "package" and rest.isdigit():
        return int(rest)
    node = machine.numa_node(index) if (index := node_of(machine, slot)) is not None else None
    if node is not None and node.packages:
        return node.packages[0]
    pus = slot_pus(machine, slot)
    return next((core.package for core in machine.cores if core.pus & pus), None)
