"""Draw the machine: packages, NUMA nodes, cores and their PUs, what may be used and what not."""

import argparse
import re
import shutil
from collections.abc import Iterable, Mapping
from itertools import groupby

from engine.cli import sources
from engine.cli.text import DASH, folded, print_json, size, table
from engine.core.codec import to_builtins
from engine.core.cpuset import CpuSet
from engine.core.topology import Core, Gpu, Machine, Missing, NumaNode


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    sources.arguments(parser)
    parser.add_argument("--json", action="store_true", help="print slotdeck.topo/1")


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the machine."""
    machine = sources.machine(asked)
    if asked.json:
        values = to_builtins(machine)
        del values["live"]
        values["memory_bytes"] = machine.total_memory_bytes
        print_json({"schema": "slotdeck.topo/1", **values})
    else:
        print(describe(machine, shutil.get_terminal_size().columns))
    return 0


def describe(machine: Machine, width: int = 80) -> str:
    """The machine in lines, cores that are alike folded into one."""
    lines = [_summary(machine)]
    told: set[int] = set()
    for package in machine.packages:
        mine = [core for core in machine.cores if core.package == package.os_index]
        lines += ["", f"package {package.os_index}: {_count(len(mine), 'core')}"]
        for node in machine.numa_nodes:
            inside = [core for core in mine if node.os_index in core.numa_nodes]
            if inside:
                lines.append(f"  {_node(node, package.os_index)}")
                told.add(node.os_index)
                lines += _cores(machine, inside, width, "    ")
        lines += _cores(machine, [core for core in mine if not core.numa_nodes], width, "  ")
    if homeless := [core for core in machine.cores if core.package is None]:
        lines += ["", "cores of no known package:", *_cores(machine, homeless, width, "  ")]
    if rest := [node for node in machine.numa_nodes if node.os_index not in told]:
        lines += ["", *(f"{_node(node, None)}, no cores" for node in rest)]
    if machine.gpus:
        lines += ["", *(f"{_gpu(gpu)}" for gpu in machine.gpus)]
    lines += _distances(machine)
    usable = f"usable: PU {machine.pus.usable or DASH}"
    if machine.numa_nodes:
        usable += f", memory of NUMA node {machine.usable_nodes or DASH}"
    lines += ["", *folded(usable, width, indent="  ")]
    if blocked := machine.pus.online - machine.pus.usable:
        lines += folded(f"not ours to use (cpuset or affinity): PU {blocked}", width, indent="  ")
    if machine.pus.offline:
        lines += folded(f"offline: PU {machine.pus.offline}", width, indent="  ")
    for text in _unknown(machine.missing):
        lines += folded(f"not known: {text}", width, indent="  ")
    return "\n".join(lines)


def _summary(machine: Machine) -> str:
    memory = [node.memory_bytes for node in machine.numa_nodes]
    known = [one for one in memory if one is not None]
    parts = [
        _count(len(machine.packages), "package"),
        _count(len(machine.numa_nodes), "NUMA node"),
        _count(len(machine.cores), "core"),
        _count(len(machine.pus.online), "PU"),
        *([_count(len(machine.gpus), "GPU")] if machine.gpus else []),
        *([f"{size(sum(known))} memory"] if known and len(known) == len(memory) else []),
    ]
    return ", ".join(parts)


def _node(node: NumaNode, package: int | None) -> str:
    kind = f" {node.kind}" if node.kind != "unknown" else ""
    others = [one for one in node.packages if one != package]
    shared = f", shared with package {CpuSet(others)}" if others and package is not None else ""
    memory = "no memory" if node.memory_bytes == 0 else f"{size(node.memory_bytes)}{kind}"
    return f"NUMA node {node.os_index}: {memory}{shared}"


def _cores(machine: Machine, cores: list[Core], width: int, indent: str) -> list[str]:
    """One line for each run of cores that are alike."""
    index = {core: position for position, core in enumerate(machine.cores)}

    def likeness(core: Core) -> tuple[int, str, str]:
        return len(core.pus), core.kind or "", _use(core, machine)

    lines: list[str] = []
    for (siblings, kind, use), run in groupby(cores, key=likeness):
        alike = list(run)
        numbers = CpuSet(index[core] for core in alike)
        pus = CpuSet(pu for core in alike for pu in core.pus)
        text = f"{indent}core {numbers}: PU {pus}"
        if siblings > 1 and len(alike) > 1:
            pairs = [str(core.pus) for core in alike[:2]] + (["…"] if len(alike) > 2 else [])
            text += f" (SMT siblings {' · '.join(pairs)})"
        elif siblings > 1:
            text += " (SMT siblings)"
        extra = ", ".join(part for part in (kind, use) if part)
        lines += folded(f"{text} {extra}".rstrip(), width, indent=f"{indent}  ")
    return lines


def _use(core: Core, machine: Machine) -> str:
    ours = core.pus & machine.pus.usable
    if not ours:
        return "not ours to use"
    return "" if ours == core.pus else "partly ours"


def _gpu(gpu: Gpu) -> str:
    link = f"{gpu.link_gt_s:g} GT/s x{gpu.link_width}" if gpu.link_gt_s else DASH
    node = DASH if gpu.numa_node is None else str(gpu.numa_node)
    name = gpu.name or f"{gpu.vendor}:{gpu.device}"
    return (
        f"GPU {gpu.index}: {name}, {size(gpu.memory_bytes)}, {gpu.driver or 'no driver'}, "
        f"NUMA node {node}, PCIe {link}, {gpu.pci}"
    )


def _distances(machine: Machine) -> list[str]:
    if machine.distances is None or len(machine.numa_nodes) < 2:
        return []
    names = [str(node.os_index) for node in machine.numa_nodes]
    apart = {
        cost
        for row, costs in enumerate(machine.distances)
        for column, cost in enumerate(costs)
        if row != column
    }
    if len(names) > 2 and len(apart) == 1:
        return ["", f"distances: {apart.pop()} from each NUMA node to every other (10 = local)"]
    rows = [
        [f"  node {name}", *map(str, row)]
        for name, row in zip(names, machine.distances, strict=True)
    ]
    return ["", "distances (10 = local):", table(["", *names], rows)]


def _unknown(missing: Iterable[Missing]) -> list[str]:
    """Facts that are missing for many PUs or nodes alike, in one line with their number."""
    counted: dict[tuple[str, str], int] = {}
    for one in missing:
        alike = re.sub(r"(?<=[a-z])\d+(?=/)", "*", one.what), one.why
        counted[alike] = counted.get(alike, 0) + 1
    return [
        f"{what}: {why}" + (f" ({count} times)" if count > 1 else "")
        for (what, why), count in counted.items()
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
