"""The machine as the map shows it: packages, in them NUMA nodes, in them cores and GPUs."""

from dataclasses import dataclass

from engine.core.cpuset import CpuSet
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
    """The PUs that a slot of the map covers: `package:N`, `numa:N`, `core:LIST`."""
    kind, _, rest = slot.partition(":")
    if not rest.isdigit():
        return CpuSet()
    index = int(rest)
    if kind == "core" and index < len(machine.cores):
        return machine.cores[index].pus
    if kind == "numa":
        node = machine.numa_node(index)
        return node.cpus if node else CpuSet()
    if kind == "package":
        pus = [core.pus for core in machine.cores if core.package == index]
        return CpuSet(pu for each in pus for pu in each)
    return CpuSet()
