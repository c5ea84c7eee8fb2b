"""Which GPUs a process has opened, and how much of their memory is its own (drm-usage-stats)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.core.topology import Gpu
from engine.host.drm_fdinfo import NODE, DrmClient, parse_fdinfo
from engine.host.root import HostRoot


@dataclass(frozen=True, slots=True)
class HeldGpu:
    """One GPU that a process has open."""

    render: bool
    """Through the render node, as engines do."""
    memory_bytes: int | None
    """None where its driver does not tell."""


def nodes_of(gpus: Sequence[Gpu]) -> dict[str, int]:
    """Name of a device file below /dev/dri -> the GPU's index."""
    return {node: gpu.index for gpu in gpus for node in (gpu.drm_render, gpu.drm_card) if node}


def gpu_files(files: Mapping[str, str], nodes: Mapping[str, int]) -> dict[str, int]:
    """Of a process's open files those that are GPUs: descriptor -> the GPU's index."""
    found = {}
    for descriptor, target in files.items():
        node = NODE.match(target)
        if node and node.group(1) in nodes:
            found[descriptor] = nodes[node.group(1)]
    return found


def held_gpus(
    root: HostRoot, pid: int, files: Mapping[str, str], gpus: Sequence[Gpu]
) -> dict[int, HeldGpu]:
    """By the GPU's index; `files` are the process's open files by descriptor."""
    clients: dict[int, dict[str | None, int | None]] = {}
    renders: set[int] = set()
    for descriptor, index in gpu_files(files, nodes_of(gpus)).items():
        told = parse_fdinfo(root.text(f"proc/{pid}/fdinfo/{descriptor}") or "") or DrmClient(None)
        sizes = clients.setdefault(index, {})
        # Several descriptors may be one client: of those without an id the largest is sure.
        before, now = sizes.get(told.id), told.memory_bytes
        sizes[told.id] = now if before is None else max(before, now or 0)
        if "/renderD" in files[descriptor]:
            renders.add(index)
    return {index: HeldGpu(index in renders, _sum(sizes)) for index, sizes in clients.items()}


def _sum(sizes: Mapping[str | None, int | None]) -> int | None:
    known = [size for size in sizes.values() if size is not None]
    return sum(known) if known else None
