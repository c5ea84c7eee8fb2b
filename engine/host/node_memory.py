"""Memory that a new program can have on each NUMA node now, not what the node was built with."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from engine.host.lists import numbered, read_index
from engine.host.nodes import FOLDER, meminfo
from engine.host.root import HostRoot


@dataclass(frozen=True, slots=True)
class NodeMemory:
    """One NUMA node's memory at one moment."""

    total_bytes: int
    free_bytes: int
    """`MemFree`: in no use at all; pools of huge pages are not in it."""
    reclaimable_bytes: int
    """What the kernel gives up at once for a new program: cached files and their like."""
    huge_bytes: int
    """Set aside in pools of huge pages: only who asks for such pages gets them."""
    huge_free_bytes: int
    """Of those, what nobody has asked for yet."""

    @property
    def available_bytes(self) -> int:
        """What a program can have that wants ordinary pages."""
        return self.free_bytes + self.reclaimable_bytes


def read_node_memory(root: HostRoot) -> dict[int | None, NodeMemory]:
    """The memory of each NUMA node by its number; nodes that tell no sizes are left out.

    From `nodeN/meminfo` and `nodeN/hugepages` (Documentation/ABI/stable/sysfs-devices-node). Where
    there is one node, /proc/meminfo tells it: that knows the limits of a container (lxcfs) and
    what a virtual machine gets back from its host. On a kernel without NUMA the same stands under
    None.

    What may be reclaimed is estimated as the kernel does for `MemAvailable`, which it does not
    tell by node: files in the page cache and `KReclaimable`, but without pages that must be
    written to a disk first (`Dirty`, `Writeback`), and without files that some process has mapped
    (`Mapped` beyond `Shmem`): those are weights that a running engine reads for each token. The
    last percent is never to be had: the kernel keeps it for itself.
    """
    indexes = numbered(root.names(FOLDER), "node")
    if len(indexes) < 2 and (whole := _whole(root)):
        return {indexes[0] if indexes else None: whole}
    found: dict[int | None, NodeMemory] = {}
    for index in indexes:
        if memory := _memory(
            meminfo(root, index), *_huge(root, f"{FOLDER}/node{index}/hugepages")
        ):
            found[index] = memory
    return found


def _memory(fields: Mapping[str, int], huge: int, huge_free: int) -> NodeMemory | None:
    if not {"MemTotal", "MemFree"} <= fields.keys():
        return None
    files = fields.get("Active(file)", 0) + fields.get("Inactive(file)", 0)
    mapped = max(0, fields.get("Mapped", 0) - fields.get("Shmem", 0))
    unwritten = fields.get("Dirty", 0) + fields.get("Writeback", 0)
    # Before Linux 4.20 only the slabs were told.
    kernels = fields.get("KReclaimable", fields.get("SReclaimable", 0))
    reclaimable = max(0, files - mapped - unwritten) + kernels
    if (available := fields.get("MemAvailable")) is not None:
        reclaimable = min(reclaimable, max(0, available - fields["MemFree"]))
    return NodeMemory(fields["MemTotal"], fields["MemFree"], reclaimable, huge, huge_free)


def _whole(root: HostRoot) -> NodeMemory | None:
    """By /proc/meminfo (proc_meminfo(5)), in which the kernel's own estimate is the limit."""
    rows = re.findall(
        r"^([\w()]+):[ \t]+([0-9]{1,15}) kB$", root.text("proc/meminfo") or "", re.MULTILINE
    )
    fields = {name: int(kib) * 1024 for name, kib in rows}
    return _memory(fields, *_huge(root, "sys/kernel/mm/hugepages"))


def _huge(root: HostRoot, folder: str) -> tuple[int, int]:
    """Bytes in the pools of all sizes, and those of them that are free."""
    whole = free = 0
    for name in root.names(folder):
        size = re.fullmatch(r"hugepages-([0-9]{1,9})kB", name)
        if size is None:
            continue
        page_bytes = int(size.group(1)) * 1024
        whole += (read_index(root, f"{folder}/{name}/nr_hugepages") or 0) * page_bytes
        free += (read_index(root, f"{folder}/{name}/free_hugepages") or 0) * page_bytes
    return whole, free
