"""NUMA nodes from /sys/devices/system/node: PUs, memory, distances, and their counters."""

import re
from dataclasses import dataclass

from engine.core.cpuset import CpuSet
from engine.core.topology import Missing
from engine.host.lists import read_list, read_mask
from engine.host.root import HostRoot

FOLDER = "sys/devices/system/node"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One NUMA node as the kernel tells it."""

    os_index: int
    cpus: CpuSet
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class NodesFacts:
    """All nodes, their distances in the same order, and what was not told."""

    nodes: tuple[NodeFacts, ...]
    distances: tuple[tuple[int, ...], ...] | None
    missing: tuple[Missing, ...]


def read_nodes(root: HostRoot) -> NodesFacts:
    """Read `nodeN/cpulist`, `nodeN/meminfo` and `nodeN/distance` of each node folder."""
    missing: list[Missing] = []
    nodes: list[NodeFacts] = []
    rows: list[tuple[int, ...] | None] = []
    found = sorted(
        int(match.group(1))
        for name in root.names(FOLDER)
        if (match := re.fullmatch(r"node([0-9]{1,5})", name))
    )
    for index in found:
        cpus = read_list(root, f"{FOLDER}/node{index}/cpulist")
        if cpus is None:
            cpus = read_mask(root, f"{FOLDER}/node{index}/cpumap")
        if cpus is None:
            missing.append(Missing(f"{FOLDER}/node{index}/cpulist", "no readable list"))
        memory = meminfo(root, index).get("MemTotal")
        if memory is None:
            missing.append(Missing(f"{FOLDER}/node{index}/meminfo", "no MemTotal"))
        nodes.append(NodeFacts(index, cpus or CpuSet(), memory))
        rows.append(_distance_row(root, index))
    distances = tuple(row for row in rows if row is not None and len(row) == len(found))
    if found and len(distances) != len(found):
        missing.append(Missing(f"{FOLDER}/node*/distance", "absent, or not one row per node"))
    return NodesFacts(
        tuple(nodes), distances if found and len(distances) == len(found) else None, tuple(missing)
    )


def _distance_row(root: HostRoot, index: int) -> tuple[int, ...] | None:
    words = (root.text(f"{FOLDER}/node{index}/distance") or "").split()
    if not words or not all(re.fullmatch(r"[0-9]{1,6}", word) for word in words):
        return None
    return tuple(int(word) for word in words)


def meminfo(root: HostRoot, index: int) -> dict[str, int]:
    """`nodeN/meminfo` ("Node 0 MemFree: 123 kB") in bytes by field name."""
    return {
        match.group(1): int(match.group(2)) * 1024
        for match in re.finditer(
            r"^Node [0-9]+ ([\w()]+):[ \t]+([0-9]{1,15}) kB$",
            root.text(f"{FOLDER}/node{index}/meminfo") or "",
            re.MULTILINE,
        )
    }


def numastat(root: HostRoot, index: int) -> dict[str, int]:
    """`nodeN/numastat`: allocation events since boot (Documentation/admin-guide/numastat)."""
    counters: dict[str, int] = {}
    for line in (root.text(f"{FOLDER}/node{index}/numastat") or "").splitlines():
        name, _, value = line.partition(" ")
        if re.fullmatch(r"[0-9]{1,20}", value.strip()):
            counters[name] = int(value)
    return counters
