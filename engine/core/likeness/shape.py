"""A machine's shape: what its numbers mean, for telling whether another one is the same."""

from dataclasses import dataclass

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.topology import Gpu, Machine, NumaNode

_GIB = 1 << 30
_NO_NODES = NodeSet()


@dataclass(frozen=True, slots=True)
class NodeShape:
    """A NUMA node as memory; its PUs are told by the cores."""

    kind: str
    """dram, hbm, cxl, gpu or unknown."""
    gib: float | None
    near: NodeSet = _NO_NODES
    """For memory without PUs: the nodes with PUs that are nearest to it."""


@dataclass(frozen=True, slots=True)
class CoreShape:
    """A core; which one it is, its place in the machine's order tells."""

    package: int | None
    nodes: NodeSet
    kind: str | None
    pus: CpuSet


@dataclass(frozen=True, slots=True)
class GpuShape:
    """A GPU by what it is and where it hangs; no serial number, no PCI address."""

    name: str
    node: int | None
    gib: float | None


@dataclass(frozen=True, slots=True)
class Shape:
    """Packages, NUMA nodes, cores with their PUs, and GPUs, under one machine's numbers."""

    nodes: dict[int, NodeShape]
    cores: tuple[CoreShape, ...]
    """In the order in which slots count them."""
    gpus: dict[int, GpuShape]

    @property
    def packages(self) -> CpuSet:
        return CpuSet(core.package for core in self.cores if core.package is not None)

    @property
    def pus(self) -> CpuSet:
        return CpuSet(pu for core in self.cores for pu in core.pus)

    def node(self, index: int) -> NodeShape:
        """That NUMA node; of one that only cores or GPUs name nothing is known."""
        return self.nodes.get(index, NodeShape("unknown", None))

    def cores_in(self, kind: str, indexes: CpuSet) -> list[int]:
        """The cores of a machine, package or numa slot, by their index in the machine."""
        match kind:
            case "package":
                return [i for i, core in enumerate(self.cores) if core.package in indexes.pus]
            case "numa":
                return [i for i, core in enumerate(self.cores) if core.nodes & indexes]
            case _:
                return list(range(len(self.cores)))


def shape_of(machine: Machine) -> Shape:
    """The shape of a machine at hand."""
    return Shape(
        nodes={
            node.os_index: NodeShape(node.kind, gib(node.memory_bytes), _near(node, machine))
            for node in machine.numa_nodes
        },
        cores=tuple(
            CoreShape(core.package, core.numa_nodes, core.kind, core.pus) for core in machine.cores
        ),
        gpus={
            gpu.index: GpuShape(gpu_name(gpu), gpu.numa_node, gib(gpu.memory_bytes))
            for gpu in machine.gpus
        },
    )


def gpu_name(gpu: Gpu) -> str:
    """Its name, else its PCI ids."""
    if gpu.name is not None:
        return gpu.name
    return f"{gpu.vendor or 'unknown'}:{gpu.device or 'unknown'}"


def gib(size_bytes: int | None) -> float | None:
    """Coarse, so that like nodes read alike: the kernel keeps a little of each for itself."""
    if size_bytes is None:
        return None
    size = size_bytes / _GIB
    if size >= 8:
        return round(size)
    return max(0.1, round(size, 1)) if size_bytes else 0


def _near(node: NumaNode, machine: Machine) -> NodeSet:
    if node.cpus:
        return NodeSet()
    if node.initiators:
        return node.initiators
    distances = {
        other.os_index: distance
        for other in machine.numa_nodes
        if other.cpus and (distance := machine.distance(other.os_index, node.os_index)) is not None
    }
    least = min(distances.values(), default=None)
    return NodeSet(other for other, distance in distances.items() if distance == least)
