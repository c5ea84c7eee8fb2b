"""One machine read into a topology: cores, packages, NUMA nodes, GPUs, and what we may use."""

import re

from engine.core.cpuset import NodeSet
from engine.core.topology import Core, Machine, Missing, NumaNode, Package, Pus
from engine.host.core_kinds import read_core_kinds, read_highest_perf
from engine.host.cpus import CpuFacts, read_cpus
from engine.host.gpus import read_gpus
from engine.host.limits import read_limits
from engine.host.memory_kinds import read_memory_kinds
from engine.host.nodes import NodeFacts, read_nodes
from engine.host.root import HostRoot

_GIB = 1 << 30
_TOLERATED = 1 / 32
"""Old kernels count a node's memory with what the kernel itself keeps, up to 2 percent."""


def read_machine(root: HostRoot) -> Machine:
    """Read the machine under this root; what it does not tell stands in `missing`."""
    cpus = read_cpus(root)
    nodes = read_nodes(root, cpus.online | cpus.offline)
    missing = [*cpus.missing, *nodes.missing]
    cores = _cores(root, cpus, nodes.nodes, missing)
    kinds, unsure = read_memory_kinds(
        root, [(node.os_index, node.cpus, node.memory_bytes) for node in nodes.nodes]
    )
    missing += unsure
    memory = _memory(root, nodes.nodes, missing)
    limits = read_limits(root)
    missing += limits.missing
    gpus, unknown = read_gpus(root, [(node.os_index, node.cpus) for node in nodes.nodes])
    missing += unknown
    packages = sorted({core.package for core in cores if core.package is not None})
    every_node = NodeSet(node.os_index for node in nodes.nodes)
    return Machine(
        packages=tuple(_package(package, cores) for package in packages),
        numa_nodes=tuple(
            NumaNode(
                os_index=node.os_index,
                cpus=node.cpus,
                memory_bytes=node.memory_bytes,
                packages=_packages_of(node.os_index, cores),
                kind=kinds[node.os_index].kind,
                initiators=kinds[node.os_index].initiators & every_node,
            )
            for node in nodes.nodes
        ),
        cores=cores,
        pus=Pus(
            online=cpus.online,
            offline=cpus.offline,
            usable=cpus.online if limits.pus is None else cpus.online & limits.pus,
        ),
        usable_nodes=every_node if limits.nodes is None else every_node & limits.nodes,
        distances=nodes.distances,
        gpus=gpus,
        missing=tuple(missing),
        live=root.live,
        memory_bytes=memory,
    )


def _cores(
    root: HostRoot, cpus: CpuFacts, nodes: tuple[NodeFacts, ...], missing: list[Missing]
) -> tuple[Core, ...]:
    node_of = {pu: node.os_index for node in nodes for pu in node.cpus}
    told = {core.package for core in cpus.cores}
    sets = [core.pus for core in cpus.cores]
    kind_of, guessed = read_core_kinds(root, sets, len(told))
    highest_perf_of = read_highest_perf(root, sets, kind_of)
    missing += guessed
    cores: list[Core] = []
    for core in sorted(cpus.cores, key=lambda core: (core.package or 0, min(core.pus))):
        near = NodeSet(node_of[pu] for pu in core.pus if pu in node_of)
        if len(near) > 1:
            missing.append(Missing(f"cores PU {core.pus}", f"one core in NUMA nodes {near}"))
        elif nodes and not near:
            missing.append(Missing(f"cores PU {core.pus} numa_nodes", "no node lists it"))
        kind, highest_perf = kind_of(core.pus), highest_perf_of(core.pus)
        cores.append(Core(core.package, core.core_id, near, core.pus, kind, highest_perf))
    if not cores:
        missing.append(Missing("cores", "the kernel tells no online PU"))
    return tuple(cores)


def _package(package: int, cores: tuple[Core, ...]) -> Package:
    mine = [core for core in cores if core.package == package]
    return Package(
        os_index=package,
        numa_nodes=NodeSet(node for core in mine for node in core.numa_nodes),
        cores=len(mine),
    )


def _packages_of(node: int, cores: tuple[Core, ...]) -> tuple[int, ...]:
    told = {core.package for core in cores if node in core.numa_nodes}
    return tuple(sorted(package for package in told if package is not None))


def _memory(root: HostRoot, nodes: tuple[NodeFacts, ...], missing: list[Missing]) -> int | None:
    """`MemTotal` of /proc/meminfo where the nodes do not tell, as without NUMA; else None."""
    text = root.content("proc/meminfo") or ""
    told = re.search(r"^MemTotal:[ \t]+([0-9]{1,15}) kB$", text, re.MULTILINE)
    total = int(told.group(1)) * 1024 if told else None
    if not nodes:
        missing.append(Missing("numa_nodes", "the kernel has no /sys/devices/system/node"))
    sizes = [node.memory_bytes for node in nodes if node.memory_bytes is not None]
    if not sizes or len(sizes) < len(nodes):
        if total is None:
            missing.append(Missing("memory_bytes", "no MemTotal in /proc/meminfo"))
        return total
    summed = sum(sizes)
    if total is not None and abs(summed - total) > total * _TOLERATED:
        why = f"{summed / _GIB:.1f} GiB together, {total / _GIB:.1f} GiB in /proc/meminfo"
        missing.append(Missing("numa_nodes memory_bytes", why))
    return None
