"""What kind of memory a NUMA node is: DRAM, HBM, CXL, a GPU's, or not told."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.topology import Missing
from engine.host.device_root import DeviceRoot
from engine.host.lists import numbered, read_index, read_list
from engine.host.root import HostRoot

_NODES = "sys/devices/system/node"
_TIERS = "sys/devices/virtual/memory_tiering"
_DAX = "sys/bus/dax/devices"
_CXL = "sys/bus/cxl/devices"
_NVIDIA = "proc/driver/nvidia/gpus"

_FAR_APART = 2
"""Bandwidths of two kinds of memory differ by more than this; HBM has 3 to 4 times DRAM's."""


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """The kind of one node's memory and who reaches it best."""

    kind: str
    initiators: NodeSet
    """Nodes with PUs that reach it best, by the HMAT; empty where firmware has none."""


class _Machine:
    """Everything that says something about any node's memory, read once."""

    def __init__(self, root: DeviceRoot, nodes: Sequence[tuple[int, CpuSet, int | None]]) -> None:
        plain = [index for index, cpus, size in nodes if cpus and size]
        self.unread: list[Missing] = []
        self.bandwidth = {index: self._bandwidth(root, index) for index, _, _ in nodes}
        known = [width for index in plain if (width := self.bandwidth[index]) is not None]
        self.slowest_plain = min(known, default=None)
        alone = any(not cpus and size for _, cpus, size in nodes)
        self.tier = dict(_tiers(root)) if alone else {}
        tiers = [tier for index in plain if (tier := self.tier.get(index)) is not None]
        self.plain_tiers = (min(tiers), max(tiers)) if tiers else None
        self.dax = dict(_dax(root)) if alone else {}
        self.gpus = NodeSet(_gpu_nodes(root)) if alone else NodeSet()
        names = root.names(_CXL) if alone else ()
        self.has_cxl = bool(numbered(names, "mem"))
        self.cxl = NodeSet(_region_nodes(root, names, [index for index, _, _ in nodes]))

    def _bandwidth(self, root: HostRoot, index: int) -> int | None:
        """MB/s for the PUs that are best, by firmware (Documentation/admin-guide/mm/numaperf).

        `access1` counts only nodes with PUs, `access0` also devices that read memory.
        """
        for access in ("access1", "access0"):
            folder = f"{_NODES}/node{index}/{access}/initiators"
            width = read_index(root, f"{folder}/read_bandwidth")
            if width:
                return width
            if "write_bandwidth" in root.names(folder):
                self.unread.append(Missing(f"{folder}/read_bandwidth", "not a readable number"))
        return None


def read_memory_kinds(
    root: HostRoot, nodes: Sequence[tuple[int, CpuSet, int | None]]
) -> tuple[dict[int, MemoryFacts], tuple[Missing, ...]]:
    """The kind of each node, given as (OS index, PUs, memory in bytes).

    A node with PUs is DRAM, unless firmware gives it more than twice the bandwidth of another
    one with PUs. One without PUs is, by the first that applies: a GPU's, by NVIDIA's
    /proc/driver/nvidia/gpus/*/numa_status; CXL, by its dax device or by a CXL region that holds
    its memory blocks; HBM, by a memory tier above or a bandwidth of twice that of all nodes with
    PUs; CXL, by a tier below or half the bandwidth on a machine with CXL memory devices.
    Everything derived from speed is said to be so in a row of the second value.
    """
    machine = _Machine(DeviceRoot.of(root), nodes)
    missing = machine.unread
    found: dict[int, MemoryFacts] = {}
    for index, cpus, size in nodes:
        kind, why = _kind(machine, index, cpus, size)
        if why is not None:
            missing.append(Missing(f"numa_nodes {index} kind", why))
        found[index] = MemoryFacts(kind, NodeSet() if cpus else _initiators(root, index))
    return found, tuple(missing)


def _kind(machine: _Machine, index: int, cpus: CpuSet, size: int | None) -> tuple[str, str | None]:
    """The kind, and why it is not certain."""
    if not size:
        return "unknown", None  # no memory that could be of a kind
    width, plain = machine.bandwidth[index], machine.slowest_plain
    wide = None
    if (
        width is not None
        and plain is not None
        and max(width, plain) >= _FAR_APART * min(width, plain)
    ):
        # MB/s, as the kernel has them.
        wide = f"{width / 1000:g} GB/s against {plain / 1000:g} of the DRAM"
    faster = wide is not None and width is not None and plain is not None and width > plain
    if faster:
        tier = machine.tier.get(index)
        below = machine.plain_tiers and tier is not None and tier > machine.plain_tiers[1]
        if not below and index not in machine.gpus and not _is_told(machine, index):
            return "hbm", f"not told: taken from its bandwidth, {wide}"
    if cpus:
        return "dram", None
    if index in machine.gpus:
        return "gpu", None
    path = machine.dax.get(index, "")
    if "/ndbus" in path:
        return "unknown", f"persistent memory ({path.rpartition('/')[2]} on the NVDIMM bus)"
    if _is_told(machine, index):
        return "cxl", None
    tier = machine.tier.get(index)
    if tier is not None and machine.plain_tiers is not None:
        if tier < machine.plain_tiers[0]:
            return "hbm", f"not told: taken from its memory tier, {tier}, which is above DRAM's"
        if tier > machine.plain_tiers[1]:
            wide = wide or f"memory tier {tier}, which is below DRAM's {machine.plain_tiers[1]}"
    if wide is None:
        return "unknown", "memory without PUs, and nothing tells of what kind"
    if machine.has_cxl:
        return "cxl", f"not told: the machine has CXL memory, and this is slow: {wide}"
    return "unknown", f"slower than DRAM, and nothing tells of what kind: {wide}"


def _is_told(machine: _Machine, index: int) -> bool:
    """Whether sysfs itself says CXL."""
    path = machine.dax.get(index, "")
    return index in machine.cxl or bool(re.search(r"/ACPI0017:|/root\d+/decoder\d+\.\d+/", path))


def _initiators(root: HostRoot, index: int) -> NodeSet:
    for access in ("access1", "access0"):
        near = numbered(root.names(f"{_NODES}/node{index}/{access}/initiators"), "node")
        if near:
            return NodeSet(near)
    return NodeSet()


def _tiers(root: HostRoot) -> Iterator[tuple[int, int]]:
    """`memory_tierN/nodelist`; a smaller N is faster (Documentation/ABI/…-memory-tiers)."""
    for tier in numbered(root.names(_TIERS), "memory_tier"):
        for index in read_list(root, f"{_TIERS}/memory_tier{tier}/nodelist") or ():
            yield index, tier


def _dax(root: DeviceRoot) -> Iterator[tuple[int, str]]:
    """The place in the device tree of each memory device that became a node (`target_node`)."""
    for name in root.names(_DAX):
        index = read_index(root, f"{_DAX}/{name}/target_node")
        if index is not None:
            yield index, root.link(f"{_DAX}/{name}") or ""


def _gpu_nodes(root: HostRoot) -> Iterator[int]:
    for name in root.names(_NVIDIA):
        told = re.search(
            r"^Node:\s*([0-9]{1,5})$",
            root.text(f"{_NVIDIA}/{name}/numa_status") or "",
            re.MULTILINE,
        )
        if told:
            yield int(told.group(1))


def _region_nodes(root: HostRoot, names: Sequence[str], nodes: Sequence[int]) -> Iterator[int]:
    """Nodes with the memory block at the start of a CXL region that firmware made."""
    starts = [
        int(text, 16)
        for region in numbered(names, "region")
        if re.fullmatch(
            r"0x[0-9a-f]{1,16}", text := root.line(f"{_CXL}/region{region}/resource") or ""
        )
    ]
    size = root.line("sys/devices/system/memory/block_size_bytes") or "" if starts else ""
    if not re.fullmatch(r"[0-9a-f]{1,12}", size) or not int(size, 16):
        return
    blocks = {f"memory{start // int(size, 16)}" for start in starts}
    for index in nodes:
        if blocks & set(root.names(f"{_NODES}/node{index}")):
            yield index
