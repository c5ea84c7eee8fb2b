"""One machine read into a topology: cores, packages, NUMA nodes, and what we may use of them."""

import re

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.topology import Core, Machine, Missing, NumaNode, Package, Pus
from engine.host.cpus import read_cpus
from engine.host.nodes import read_nodes
from engine.host.root import HostRoot


def read_machine(root: HostRoot) -> Machine:
    """Read the machine under this root; what it does not tell stands in `missing`."""
    cpus = read_cpus(root)
    nodes = read_nodes(root)
    missing = [*cpus.missing, *nodes.missing]
    numa_nodes = nodes.nodes
    if not numa_nodes:
        missing.append(Missing("numa_nodes", "the kernel has no /sys/devices/system/node"))
    cores = tuple(
        Core(
            package=core.package,
            core_id=core.core_id,
            numa_nodes=NodeSet(node.os_index for node in numa_nodes if node.cpus & core.pus),
            pus=core.pus,
            kind=core.kind,
        )
        for core in sorted(cpus.cores, key=lambda core: (core.package or 0, min(core.pus)))
    )
    if not cores:
        missing.append(Missing("cores", "the kernel tells no online PU"))
    allowed_pus, allowed_nodes = _allowed(root, missing)
    every_node = NodeSet(node.os_index for node in numa_nodes)
    packages = {core.package for core in cores if core.package is not None}
    if not any(name.startswith("pci") for name in root.names("sys/devices")):
        missing.append(Missing("gpus", "no PCI bus in /sys/devices"))
    else:
        missing.append(Missing("gpus", "this version does not read GPUs yet"))
    return Machine(
        packages=tuple(
            Package(
                os_index=package,
                numa_nodes=NodeSet(
                    node for core in cores if core.package == package for node in core.numa_nodes
                ),
                cores=sum(1 for core in cores if core.package == package),
            )
            for package in sorted(packages)
        ),
        numa_nodes=tuple(
            NumaNode(
                os_index=node.os_index,
                cpus=node.cpus,
                memory_bytes=node.memory_bytes,
                packages=tuple(
                    sorted(
                        {
                            core.package
                            for core in cores
                            if core.package is not None and node.os_index in core.numa_nodes
                        }
                    )
                ),
                kind="dram" if node.cpus and node.memory_bytes else "unknown",
            )
            for node in numa_nodes
        ),
        cores=cores,
        pus=Pus(
            online=cpus.online,
            offline=cpus.offline,
            usable=cpus.online if allowed_pus is None else cpus.online & allowed_pus,
        ),
        usable_nodes=every_node if allowed_nodes is None else every_node & allowed_nodes,
        distances=nodes.distances,
        gpus=(),
        missing=tuple(missing),
        live=root.live,
    )


def _allowed(root: HostRoot, missing: list[Missing]) -> tuple[CpuSet | None, NodeSet | None]:
    """`Cpus_allowed_list` and `Mems_allowed_list` of /proc/self/status: what *we* may use."""
    status = root.text("proc/self/status") or ""
    sets: list[CpuSet | None] = []
    for field in ("Cpus_allowed_list", "Mems_allowed_list"):
        match = re.search(rf"^{field}:\s*([\d,-]*)$", status, re.MULTILINE)
        try:
            sets.append(CpuSet.parse(match.group(1)) if match else None)
        except ValueError:
            sets.append(None)
        if sets[-1] is None:
            missing.append(Missing(f"proc/self/status {field}", "not told: all taken as usable"))
    return sets[0], sets[1]
