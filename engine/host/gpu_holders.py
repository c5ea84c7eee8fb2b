"""Which GPUs a process has opened, and how much of their memory is its own (drm-usage-stats)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.core.topology import Gpu
from engine.host.root import HostRoot

_NODE = re.compile(r"/dev/dri/((?:renderD|card)[0-9]+)$")
_SIZE = re.compile(
    r"^drm-(?:resident|memory|total)-([^:\s]+):[ \t]*([0-9]{1,15})(?: (KiB|MiB|GiB))?$", re.M
)
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True, slots=True)
class HeldGpu:
    """One GPU that a process has open."""

    render: bool
    """Through the render node, as engines do."""
    memory_bytes: int | None
    """None where its driver does not tell."""


def held_gpus(
    root: HostRoot, pid: int, files: Mapping[str, str], gpus: Sequence[Gpu]
) -> dict[int, HeldGpu]:
    """By the GPU's index; `files` are the process's open files by descriptor."""
    by_node = {node: gpu.index for gpu in gpus for node in (gpu.drm_render, gpu.drm_card) if node}
    found: dict[int, HeldGpu] = {}
    for descriptor, target in files.items():
        node = _NODE.match(target)
        index = by_node.get(node.group(1)) if node else None
        if node is None or index is None:
            continue
        told = _memory(root.text(f"proc/{pid}/fdinfo/{descriptor}") or "")
        before = found.get(index, HeldGpu(render=False, memory_bytes=None))
        # Several descriptors may be one client, so the largest of them is what is sure.
        sizes = [size for size in (before.memory_bytes, told) if size is not None]
        render = before.render or node.group(1).startswith("renderD")
        found[index] = HeldGpu(render=render, memory_bytes=max(sizes, default=None))
    return found


def _memory(fdinfo: str) -> int | None:
    """All regions together, in each the largest of what its words tell."""
    regions: dict[str, int] = {}
    for region, number, unit in _SIZE.findall(fdinfo):
        regions[region] = max(regions.get(region, 0), int(number) * _UNITS[unit])
    return sum(regions.values()) if regions else None
