"""NUMA nodes from /sys/devices/system/node: PUs, memory, distances, and their counters."""

import re
from dataclasses import dataclass

from engine.core.cpuset import CpuSet
from engine.core.topology import Missing
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
        if (match := re.fullmatch(r"node(\d+)", name))
    )
    for index in found:
        cpus = CpuSet()
        text = root.text(f"{FOLDER}/node{index}/cpulist")
        try:
            cpus = CpuSet.parse(text or "")
        except ValueError:
            text = None
        if text is None:
            missing.append(Missing(f"{FOLDER}/node{index}/cpulist", "no readable list"))
        memory = meminfo(root, index).get("MemTotal")
        if memory is None:
            missing.append(Missing(f"{FOLDER}/node{index}/meminfo", "no MemTotal"))
        nodes.append(NodeFacts(index, cpus, memory))
        rows.append(_distance_row(root, index))
    distances = tuple(row for row in rows if row is not None and len(row) == len(found))
    if found and len(distances) != len(found):
        missing.append(Missing(f"{FOLDER}/node*/distance", "absent, or not one row per node"))
    return NodesFacts(
        tuple(nodes), distances if found and len(distances) == len(found) else None, tuple(missing)
    )


def _distance_row(root: HostRoot, index: int) -> tuple[int, ...] | None:
    words = (root.text(f"{FOLDER}/node{index}/distance") or "").split()
    if not words or not all(word.isascii() and word.isdigit() for word in words):
        return None
    return tuple(int(word) for word in words)


def meminfo(root: HostRoot, index: int) -> dict[str, int]:
    """`nodeN/meminfo` ("Node 0 MemFree: 123 kB") in bytes by field name."""
    return {
        match.group(1): int(match.group(2)) * 1024
        for match in re.finditer(
            r"^Node \d+ ([\w()]+):\s+(\d+) kB$",
            root.text(f"{FOLDER}/node{index}/meminfo") or "",
            re.MULTILINE,
        )
    }


def numastat(root: HostRoot, index: int) -> dict[str, int]:
    """`nodeN/numastat`: allocation events since boot (Documentation/admin-guide/numastat)."""
    counters: dict[str, int] = {}
    for line in (root.text(f"{FOLDER}/node{index}/numastat") or "").splitlines():
        name, _, value = line.partition(" ")
        if value.strip().isdigit():
            counters[name] = int(value)
    return counters
