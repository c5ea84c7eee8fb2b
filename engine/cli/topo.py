"""Draw the machine: packages, NUMA nodes, cores and their PUs, what may be used and what not."""

import argparse
from collections.abc import Mapping

from engine.cli import sources
from engine.cli.text import DASH, print_json, size
from engine.core.codec import to_builtins
from engine.core.topology import Core, Machine


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
        print_json({"schema": "slotdeck.topo/1", **values})
    else:
        print(describe(machine))
    return 0


def describe(machine: Machine) -> str:
    """The machine in lines, like cores folded into one."""
    lines: list[str] = []
    homeless = [core for core in machine.cores if core.package is None]
    for package in machine.packages:
        lines.append(f"package {package.os_index}: {package.cores} cores")
        nodes = [node for node in machine.numa_nodes if package.os_index in node.packages]
        for node in nodes:
            lines.append(
                f"  NUMA node {node.os_index}: {size(node.memory_bytes)} {node.kind}, "
                f"PU {node.cpus}"
            )
            lines += _cores(
                machine,
                [
                    core
                    for core in machine.cores
                    if core.package == package.os_index and node.os_index in core.numa_nodes
                ],
                "    ",
            )
        if not nodes:
            cores = [core for core in machine.cores if core.package == package.os_index]
            lines += _cores(machine, cores, "  ")
    lines += _cores(machine, homeless, "")
    lines += [
        f"NUMA node {node.os_index}: {size(node.memory_bytes)} {node.kind}, no cores"
        for node in machine.numa_nodes
        if not node.packages
    ]
    if machine.distances and len(machine.numa_nodes) > 1:
        lines.append("distances (10 = local):")
        lines += [
            f"  node {node.os_index:>3}: {' '.join(f'{cost:>3}' for cost in row)}"
            for node, row in zip(machine.numa_nodes, machine.distances, strict=True)
        ]
    lines.append(
        f"usable: PU {machine.pus.usable or DASH}, NUMA node {machine.usable_nodes or DASH}"
    )
    blocked = machine.pus.online - machine.pus.usable
    if blocked:
        lines.append(f"not ours to use (cpuset or affinity): PU {blocked}")
    if machine.pus.offline:
        lines.append(f"offline: PU {machine.pus.offline}")
    lines += [f"not known: {missing.what}: {missing.why}" for missing in machine.missing]
    return "\n".join(lines)


def _cores(machine: Machine, cores: list[Core], indent: str) -> list[str]:
    index = {core: position for position, core in enumerate(machine.cores)}
    few = cores[:4] if len(cores) > 6 else cores
    shown = [f"{indent}core {index[core]}: PU {core.pus}" for core in few]
    if len(cores) > 6:
        shown.append(f"{indent}… {len(cores) - 5} cores like these")
        shown.append(f"{indent}core {index[cores[-1]]}: PU {cores[-1].pus}")
    return shown
