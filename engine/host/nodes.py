"""NUMA nodes from /sys/devices/system/node: PUs, memory, distances, and their counters."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.core.cpuset import CpuSet
from engine.core.topology import Missing
from engine.host.lists import numbered, read_set
from engine.host.root import HostRoot

FOLDER = "sys/devices/system/node"

LOCAL, FARTHEST = 10, 255
"""ACPI's distance of a node to itself, and that of what cannot be reached."""


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


def read_nodes(root: HostRoot, known: CpuSet | None = None) -> NodesFacts:
    """Read `nodeN/cpulist`, `nodeN/meminfo` and `nodeN/distance` of each node folder.

    (Documentation/ABI/stable/sysfs-devices-node.) Every PU is then in one node at most, and among
    those `known`, where that is given.
    """
    missing: list[Missing] = []
    indexes = numbered(root.names(FOLDER), "node")
    every = [_node(root, index, missing) for index in indexes]
    nodes = _consistent(every, known, missing)
    distances = _distances(root, indexes, missing)
    kept = {node.os_index for node in nodes}
    places = [place for place, index in enumerate(indexes) if index in kept]
    return NodesFacts(
        nodes=tuple(nodes),
        distances=None
        if distances is None
        else tuple(tuple(distances[row][column] for column in places) for row in places),
        missing=tuple(missing),
    )


def _node(root: HostRoot, index: int, missing: list[Missing]) -> NodeFacts:
    folder = f"{FOLDER}/node{index}"
    cpus = read_set(root, f"{folder}/cpulist", f"{folder}/cpumap")
    if cpus is None:
        cpus = CpuSet(numbered(root.names(folder), "cpu"))
        linked = f": those linked there taken, PU {cpus}" if cpus else ""
        missing.append(Missing(f"{folder}/cpulist", f"no readable list{linked}"))
    memory = meminfo(root, index).get("MemTotal")
    if memory is None:
        missing.append(Missing(f"{folder}/meminfo", "no MemTotal"))
    return NodeFacts(index, cpus, memory)


def _consistent(
    nodes: Sequence[NodeFacts], known: CpuSet | None, missing: list[Missing]
) -> list[NodeFacts]:
    """Nodes that share no PU, and hold none that the machine has not."""
    kept: list[NodeFacts] = []
    owned = CpuSet()
    for node in nodes:
        what = f"{FOLDER}/node{node.os_index}/cpulist"
        mine = node.cpus if known is None else node.cpus & known
        if mine != node.cpus:
            strange = node.cpus - mine
            missing.append(Missing(what, f"names PU {strange}, which are not there: not taken"))
        if shared := mine & owned:
            owner = next(one.os_index for one in kept if one.cpus & shared)
            why = f"claims PU {shared}, which are of node {owner}: firmware's mistake or numa=fake"
            if not mine - shared:
                # Such nodes are no places of their own: their memory is as near as the owner's.
                size = f"{(node.memory_bytes or 0) / (1 << 30):.1f} GiB"
                missing.append(Missing(what, f"{why}; the node is left out, with {size}"))
                continue
            missing.append(Missing(what, f"{why}; not taken twice"))
            mine = mine - shared
        owned = owned | mine
        kept.append(replace(node, cpus=mine))
    return kept


def _distances(
    root: HostRoot, indexes: Sequence[int], missing: list[Missing]
) -> list[tuple[int, ...]] | None:
    """The whole matrix; None where a row is absent, of another size, or cannot be true.

    From one node to another may be farther than back.
    """
    rows: list[tuple[int, ...]] = []
    for place, index in enumerate(indexes):
        name = f"{FOLDER}/node{index}/distance"
        words = (root.line(name) or "").split()
        why = None
        if not words or not all(re.fullmatch(r"-?[0-9]{1,9}", word) for word in words):
            why = "absent, or not numbers"
        elif len(words) != len(indexes):
            why = f"{len(words)} numbers for {len(indexes)} nodes"
        else:
            row = tuple(map(int, words))
            rows.append(row)
            if row[place] != LOCAL:
                why = f"{row[place]} to itself, which is {LOCAL} by definition"
            elif wrong := [cost for cost in row if not LOCAL <= cost <= FARTHEST]:
                why = f"{wrong[0]} is not from {LOCAL} to {FARTHEST}"
        if why is not None:
            missing.append(Missing(name, f"{why}: no distances taken"))
            return None
    return rows or None


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
