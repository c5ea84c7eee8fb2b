"""GPUs in words: what each is, how it is reached, and which ones share a way."""

from collections.abc import Iterable, Sequence
from itertools import combinations, groupby

from engine.cli.boxes import Line
from engine.cli.text import DASH, size
from engine.core.cpuset import CpuSet
from engine.core.topology import Gpu, shared_bridge

_LONGEST_NAME = 60
_INTEL = "8086"
_REBAR_OFF_BELOW = 512 << 20
"""Bytes: without Resizable BAR an Arc shows 256 MiB of its memory at a time."""
_FOUR_GIB = 1 << 32


def gpu_lines(gpus: Iterable[Gpu]) -> list[Line]:
    """Two or three lines for each run of GPUs that are alike."""
    lines: list[Line] = []
    for (head, *more), run in groupby(gpus, key=_likeness):
        alike = list(run)
        each = " each" if len(alike) > 1 else ""
        numbers = CpuSet(gpu.index for gpu in alike)
        lines.append(Line(f"GPU {numbers}: {head}{each}", indent="    "))
        places = " ".join(gpu.pci for gpu in alike)
        lines.append(Line(f"  {', '.join([more[0], places])}", "    "))
        lines += [Line(f"  {text}", "    ") for text in more[1:]]
    return lines


def shared_ways(gpus: Sequence[Gpu]) -> list[str]:
    """One line for each bridge under which several GPUs reach each other."""
    below: dict[str, set[int]] = {}
    for one, other in combinations(gpus, 2):
        if bridge := shared_bridge(one, other):
            below.setdefault(bridge, set()).update((one.index, other.index))
    return [
        f"GPU {CpuSet(indexes)} reach each other below PCI bridge {bridge}"
        for bridge, indexes in below.items()
    ]


def _likeness(gpu: Gpu) -> tuple[str, ...]:
    name = (gpu.name or f"{gpu.vendor or DASH}:{gpu.device or DASH}")[:_LONGEST_NAME]
    memory = DASH if gpu.memory_bytes is None else size(gpu.memory_bytes)
    if gpu.integrated:
        return f"{name}, inside the processor", f"driver {gpu.driver or DASH}", *_odd(gpu)
    link = f"{gpu.link_gt_s:g} GT/s x{gpu.link_width}" if gpu.link_gt_s else f"link {DASH}"
    best = (gpu.link_best_gt_s or 0.0) * (gpu.link_best_width or 0)
    if gpu.link_gt_s and gpu.link_width and best > gpu.link_gt_s * gpu.link_width:
        link += f" (could be {gpu.link_best_gt_s:g} GT/s x{gpu.link_best_width})"
    return f"{name}, {memory}", f"driver {gpu.driver or DASH}, {link}", *_bar(gpu), *_odd(gpu)


def _bar(gpu: Gpu) -> list[str]:
    """Resizable BAR and Above 4G Decoding, the two firmware settings that Arc cards need."""
    if gpu.vendor != _INTEL or gpu.bar_bytes is None:
        return []
    words = [f"BAR {size(gpu.bar_bytes)}"]
    words.append("Resizable BAR off" if gpu.bar_bytes < _REBAR_OFF_BELOW else "Resizable BAR on")
    if gpu.bar_address is not None:
        words.append("above 4G" if gpu.bar_address >= _FOUR_GIB else "below 4G")
    return [", ".join(words)]


def _odd(gpu: Gpu) -> list[str]:
    odd = []
    if gpu.virtual_function:
        odd.append("a slice of a card (SR-IOV)")
    if gpu.numa_node_derived:
        odd.append("its NUMA node is derived: firmware does not tell")
    if gpu.may_open is False:
        odd.append(f"we may not open /dev/dri/{gpu.drm_render}")
    return odd
