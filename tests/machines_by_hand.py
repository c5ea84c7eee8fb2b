"""Machines built by hand, each for one way in which real ones are odd."""

from collections.abc import Sequence
from dataclasses import replace

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.topology import Core, Gpu, Machine, NumaNode, Package, Pus

GIB = 1 << 30


def build(
    cores_per_node: Sequence[int],
    *,
    nodes_per_package: int = 1,
    smt: int = 1,
    gpus_on: Sequence[int | None] = (),
    memory_bytes: int | None = 64 * GIB,
) -> Machine:
    """One entry a NUMA node; PUs numbered as Linux does on Xeon: first siblings first."""
    total = sum(cores_per_node)
    cores: list[Core] = []
    nodes: list[NumaNode] = []
    for node, count in enumerate(cores_per_node):
        package = node // nodes_per_package
        first = len(cores)
        for index in range(first, first + count):
            pus = CpuSet(index + total * sibling for sibling in range(smt))
            cores.append(Core(package, index, NodeSet([node]), pus))
        cpus = CpuSet(pu for core in cores[first:] for pu in core.pus)
        nodes.append(NumaNode(node, cpus, memory_bytes, (package,), "dram"))
    packages = tuple(
        Package(
            package,
            NodeSet(node.os_index for node in nodes if package in node.packages),
            sum(1 for core in cores if core.package == package),
        )
        for package in sorted({core.package for core in cores if core.package is not None})
    )
    online = CpuSet(range(total * smt))
    size = len(nodes)
    return Machine(
        packages=packages,
        numa_nodes=tuple(nodes),
        cores=tuple(cores),
        pus=Pus(online, CpuSet(), online),
        usable_nodes=NodeSet(range(size)),
        distances=tuple(
            tuple(_distance(a, b, nodes_per_package) for b in range(size)) for a in range(size)
        ),
        gpus=tuple(gpu(index, node) for index, node in enumerate(gpus_on)),
        missing=(),
    )


def _distance(a: int, b: int, nodes_per_package: int) -> int:
    if a == b:
        return 10
    return 12 if a // nodes_per_package == b // nodes_per_package else 21


def gpu(index: int, node: int | None) -> Gpu:
    pci = f"0000:{index + 3:02x}:00.0"
    return Gpu(
        *(index, pci, "8086", "56a0", "Arc A770", "xe", node, 16 * GIB, 16 * GIB, 1 << 40),
        *(16.0, 16, f"card{index}", f"renderD{128 + index}"),
    )


def small() -> Machine:
    """One package, one node, two cores without SMT: a small virtual machine."""
    return build([2])


def server() -> Machine:
    """Two packages of two NUMA nodes, eight cores each, two siblings a core."""
    return build([8] * 4, nodes_per_package=2, smt=2)


def uneven() -> Machine:
    """A Xeon with sub-NUMA clusters of 43, 42 and 42 cores a package."""
    return build([43, 42, 42], nodes_per_package=3, smt=2)


def with_memory_only_node() -> Machine:
    """Two nodes with cores; node 2 is memory without cores, near node 1."""
    base = build([4, 4], smt=2)
    far = NumaNode(2, CpuSet(), 512 * GIB, (), "cxl")
    return replace(
        base,
        numa_nodes=(*base.numa_nodes, far),
        usable_nodes=NodeSet([0, 1, 2]),
        distances=((10, 21, 30), (21, 10, 14), (30, 14, 10)),
    )


def with_memoryless_node() -> Machine:
    """Node 1 has cores and no memory; the nearest memory is node 2's, not node 0's."""
    base = build([4, 4, 4])
    nodes = tuple(
        replace(one, memory_bytes=0) if one.os_index == 1 else one for one in base.numa_nodes
    )
    return replace(base, numa_nodes=nodes, distances=((10, 21, 21), (21, 10, 14), (21, 14, 10)))


def with_offline_pus() -> Machine:
    """Four cores of two siblings; PUs 1, 4 and 6 are offline."""
    base = build([2, 2], smt=2)
    gone = CpuSet([1, 4, 6])
    cores = tuple(replace(core, pus=core.pus - gone) for core in base.cores if core.pus - gone)
    nodes = tuple(replace(node, cpus=node.cpus - gone) for node in base.numa_nodes)
    online = base.pus.online - gone
    return replace(base, cores=cores, numa_nodes=nodes, pus=Pus(online, gone, online))


def narrowed() -> Machine:
    """A cpuset leaves us half of node 0, one PU of node 1, and only node 0's memory."""
    base = build([4, 4], smt=2)
    usable = CpuSet.parse("0-1,8-9,12")
    pus = Pus(base.pus.online, CpuSet(), usable)
    return replace(base, pus=pus, usable_nodes=NodeSet([0]))


def without_nodes() -> Machine:
    """A kernel without NUMA: no node folder, no distances."""
    base = build([4], smt=2)
    cores = tuple(replace(core, numa_nodes=NodeSet()) for core in base.cores)
    packages = tuple(replace(package, numa_nodes=NodeSet()) for package in base.packages)
    return replace(
        base,
        packages=packages,
        cores=cores,
        numa_nodes=(),
        usable_nodes=NodeSet(),
        distances=None,
    )


def with_gpus() -> Machine:
    """Two packages; three GPUs on node 0, one on node 1, one of which firmware does not tell."""
    return build([16, 16], smt=2, gpus_on=[0, 0, 0, 1, None])


def largest() -> Machine:
    """Eight packages of 128 cores: 1024 PUs."""
    return build([128] * 8)


MACHINES: dict[str, Machine] = {
    "small": small(),
    "server": server(),
    "uneven": uneven(),
    "memory-only": with_memory_only_node(),
    "memoryless": with_memoryless_node(),
    "offline": with_offline_pus(),
    "narrowed": narrowed(),
    "no-nodes": without_nodes(),
    "gpus": with_gpus(),
    "largest": largest(),
}
