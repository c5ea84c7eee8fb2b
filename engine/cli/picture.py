"""The machine as a picture for the terminal: packages as boxes, NUMA nodes and GPUs in them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from engine.cli.boxes import Box, Line, tiled
from engine.cli.gpu_lines import gpu_lines, shared_ways
from engine.cli.text import DASH, folded, size, table
from engine.core.cpuset import CpuSet, NodeSet
from engine.core.strangers import Stranger, holders
from engine.core.topology import Core, Machine, NumaNode

_ASCII = str.maketrans("╭╮╰╯┌┐└┘─│·–—×’▲", "++++++++-|,--x'^")
_PRIORITY = "▲"
_MOST_STRANGERS = 20
"""More of them than a screen has room for are counted."""


@dataclass(frozen=True, slots=True)
class _View:
    machine: Machine
    number: dict[int, int]
    """Of a core in the machine's order, in which slots count them, by its first PU."""
    priority: CpuSet
    """PUs of the cores that may run faster than the others."""


def describe(
    machine: Machine,
    width: int = 80,
    *,
    ascii_only: bool = False,
    strangers: Sequence[Stranger] = (),
) -> str:
    """The machine in lines of at most `width` columns, what is alike folded into one."""
    first = {min(core.pus): number for number, core in enumerate(machine.cores) if core.pus}
    fast = CpuSet(pu for core in machine.priority_cores for pu in core.pus)
    view = _View(machine, first, fast)
    lines = [*folded(_summary(machine), width), ""]
    homes = {node.os_index: _home(machine, node) for node in machine.numa_nodes}
    wide = [node for node in machine.numa_nodes if len(node.packages) > 1]
    for node in wide:
        of = f"of packages {CpuSet(node.packages)}"
        lines += folded(f"NUMA node {node.os_index}: {_memory(node)}, {of}", width, indent="  ")
    lines += [""] if wide else []
    drawn = tiled([_package(view, one.os_index, homes) for one in machine.packages], width)
    loose = _loose(view, homes)
    lines += drawn + tiled(loose, width)
    lines += _placeless_gpus(machine, width)
    ways = shared_ways(machine.gpus)
    lines += (
        ["", *(part for way in ways for part in folded(way, width, indent="  "))] if ways else []
    )
    lines += _distances(machine, width)
    lines += [""] if lines[-1] else []
    lines += _use(machine, width)
    lines += _ranking(machine, width)
    lines += _unknown(machine, width)
    lines += _strangers(strangers, width)
    text = "\n".join(lines)
    # Names may come from a file of somebody else's: no escape sequence gets to the terminal.
    text = "".join(char if char.isprintable() or char == "\n" else "?" for char in text)
    if ascii_only:
        text = text.translate(_ASCII).encode("ascii", "replace").decode()
    return text


def _summary(machine: Machine) -> str:
    memory = machine.total_memory_bytes
    kinds = [core.kind for core in machine.cores]
    hybrid = [
        f"{kinds.count(kind)} {kind}" for kind in ("performance", "efficiency") if kind in kinds
    ]
    parts = [
        _count(len(machine.packages), "package"),
        _count(len(machine.numa_nodes), "NUMA node"),
        _count(len(machine.cores), "core") + (f" ({', '.join(hybrid)})" if hybrid else ""),
        _count(len(machine.pus.online), "PU"),
        *([_count(len(machine.gpus), "GPU")] if machine.gpus else []),
        *([f"{size(memory)} memory"] if memory is not None else []),
    ]
    return ", ".join(parts)


def _home(machine: Machine, node: NumaNode) -> int | None:
    """The package to draw a node in: its own, else that of the PUs that are nearest to it."""
    if node.packages:
        return node.packages[0] if len(node.packages) == 1 else None
    near = {
        package
        for one in _nearest(machine, node)
        for package in (machine.numa_node(one) or node).packages
    }
    return near.pop() if len(near) == 1 else None


def _nearest(machine: Machine, node: NumaNode) -> NodeSet:
    """Nodes with PUs that are nearest to one without: by the HMAT, else by distance."""
    if node.initiators:
        return node.initiators
    costs = {
        one.os_index: cost
        for one in machine.numa_nodes
        if one.cpus and (cost := machine.distance(one.os_index, node.os_index)) is not None
    }
    least = min(costs.values(), default=0)
    return NodeSet(one for one, cost in costs.items() if cost == least)


def _package(view: _View, package: int, homes: dict[int, int | None]) -> Box:
    machine = view.machine
    mine = [core for core in machine.cores if core.package == package]
    nodes = [node for node in machine.numa_nodes if homes[node.os_index] == package]
    inside = NodeSet(node.os_index for node in nodes)
    # A node of several packages stands above them all, its cores right in their packages.
    rest = [core for core in mine if not core.numa_nodes & inside]
    shared = NodeSet(node for core in rest for node in core.numa_nodes)
    title = f"package {package}" + (f" · NUMA node {shared}" if shared else "")
    return Box(
        title=title,
        note=_count(len(mine), "core"),
        lines=tuple(_cores(view, rest)),
        inside=tuple(_node(view, node, mine) for node in nodes),
        round=True,
    )


def _loose(view: _View, homes: dict[int, int | None]) -> list[Box]:
    """Cores of no package, and nodes that are near to no single one."""
    machine = view.machine
    stray = [core for core in machine.cores if core.package is None]
    nodes = [
        node
        for node in machine.numa_nodes
        if homes[node.os_index] is None and len(node.packages) < 2
    ]
    boxes = [_node(view, node, stray) for node in nodes]
    shown = NodeSet(node.os_index for node in nodes)
    left = [core for core in stray if not core.numa_nodes & shown]
    if left:
        lines = tuple(_cores(view, left))
        boxes.append(Box("of no known package", _count(len(left), "core"), lines, round=True))
    return boxes


def _node(view: _View, node: NumaNode, cores: Sequence[Core]) -> Box:
    machine = view.machine
    mine = [core for core in cores if node.os_index in core.numa_nodes]
    lines = _cores(view, mine)
    if not node.cpus:
        near = _nearest(machine, node)
        lines.append(Line(f"no cores, nearest to node {near}" if near else "no cores"))
    if node.memory_bytes != 0 and node.os_index not in machine.usable_nodes:
        lines.append(Line("memory not ours to use"))
    lines += gpu_lines([gpu for gpu in machine.gpus if gpu.numa_node == node.os_index])
    return Box(f"NUMA node {node.os_index}", _memory(node), tuple(lines))


def _memory(node: NumaNode) -> str:
    if node.memory_bytes == 0:
        return "no memory"
    kind = {"unknown": "", "gpu": " of a GPU"}.get(node.kind, f" {node.kind.upper()}")
    return f"{size(node.memory_bytes)}{kind}"


def _cores(view: _View, cores: Iterable[Core]) -> list[Line]:
    """For each run of cores that are alike: their numbers and PUs, and which PUs are siblings."""

    def likeness(core: Core) -> tuple[int, str, str]:
        return len(core.pus), core.kind or "", _ours(core, view.machine)

    lines: list[Line] = []
    for (siblings, kind, use), run in groupby(cores, key=likeness):
        alike = list(run)
        numbers = CpuSet(view.number[min(core.pus)] for core in alike)
        pus = CpuSet(pu for core in alike for pu in core.pus)
        words = [f"core {numbers}: PU {pus}", kind, use]
        lines.append(Line(", ".join(word for word in words if word), indent="    "))
        if siblings > 1:
            pairs = [str(core.pus) for core in alike]
            shown = pairs if len(pairs) < 4 else [*pairs[:2], "to", pairs[-1]]
            lines.append(Line(f"  SMT siblings {' '.join(shown)}", indent="    "))
        if fast := [core for core in alike if core.pus & view.priority]:
            numbers = CpuSet(view.number[min(core.pus)] for core in fast)
            lines.append(Line(f"  {_PRIORITY} core {numbers}", indent="    "))
    return lines


def _ours(core: Core, machine: Machine) -> str:
    ours = core.pus & machine.pus.usable
    if not ours:
        return "not ours to use"
    return "" if ours == core.pus else "partly ours"


def _placeless_gpus(machine: Machine, width: int) -> list[str]:
    nodes = {node.os_index for node in machine.numa_nodes}
    # The nodes of several packages have no box that a GPU could stand in.
    boxed = {node.os_index for node in machine.numa_nodes if len(node.packages) < 2}
    lines: list[str] = []
    for node in sorted(nodes - boxed):
        near = [gpu for gpu in machine.gpus if gpu.numa_node == node]
        lines += ["", f"at NUMA node {node}:"] if near else []
        lines += [part for line in gpu_lines(near) for part in _folded(line, width)]
    stray = [gpu for gpu in machine.gpus if gpu.numa_node not in nodes]
    lines += ["", "GPUs of no known NUMA node:"] if stray else []
    return lines + [part for line in gpu_lines(stray) for part in _folded(line, width)]


def _folded(line: Line, width: int) -> list[str]:
    return folded(f"  {line.text}", width, indent=f"  {line.indent}")


def _distances(machine: Machine, width: int) -> list[str]:
    if machine.distances is None or len(machine.numa_nodes) < 2:
        return []
    names = [node.os_index for node in machine.numa_nodes]
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
    whole = table(["", *map(str, names)], rows).splitlines()
    head = ["", "distances (10 = local):"]
    if max(map(len, whole)) <= width:
        return head + whole
    lines: list[str] = []
    for name, row in zip(names, machine.distances, strict=True):
        far = {
            cost: NodeSet(one for one, told in zip(names, row, strict=True) if told == cost)
            for cost in sorted(set(row))
        }
        text = "; ".join(f"{cost} to {nodes}" for cost, nodes in far.items())
        lines += folded(f"  node {name}: {text}", width, indent="    ")
    return head + lines


def _use(machine: Machine, width: int) -> list[str]:
    usable = f"usable: PU {machine.pus.usable or DASH}"
    if machine.numa_nodes:
        usable += f", memory of NUMA node {machine.usable_nodes or DASH}"
    lines = folded(usable, width, indent="  ")
    if blocked := machine.pus.online - machine.pus.usable:
        lines += folded(f"not ours to use (cpuset or affinity): PU {blocked}", width, indent="  ")
    nodes = NodeSet(node.os_index for node in machine.numa_nodes if node.memory_bytes != 0)
    if barred := nodes - machine.usable_nodes:
        why = "not ours to use (cpuset): memory of NUMA node"
        lines += folded(f"{why} {barred}", width, indent="  ")
    if machine.pus.offline:
        lines += folded(f"offline: PU {machine.pus.offline}", width, indent="  ")
    return lines


def _ranking(machine: Machine, width: int) -> list[str]:
    """What the mark of priority cores means, and in which numbers."""
    fast = {core.highest_perf for core in machine.priority_cores}
    kinds = {core.kind for core in machine.priority_cores}
    rest = {core.highest_perf for core in machine.cores if core.kind in kinds} - fast
    if not fast:
        return []
    text = f"{_PRIORITY} priority cores: may run faster, firmware ranks them {_span(fast)}"
    return folded(f"{text} and the others {_span(rest)}", width, indent="  ")


def _span(ranks: Iterable[int | None]) -> str:
    told = [rank for rank in ranks if rank is not None]
    least, most = min(told), max(told)
    return str(most) if least == most else f"{least} to {most}"


def _strangers(strangers: Sequence[Stranger], width: int) -> list[str]:
    """Whoever else is pinned here, those with the most memory if they are many."""
    if not strangers:
        return []
    largest = sorted(strangers, key=lambda one: -one.rss_bytes)[:_MOST_STRANGERS]
    lines = ["", "held by programs that are not ours:"]
    for one in sorted(largest, key=lambda one: (min(one.pus, default=0), one.pid)):
        what = [f"PU {one.pus}"] if one.pus else []
        what += [f"GPU {CpuSet(one.gpus)}"] if one.gpus else []
        nodes = "" if one.memory_nodes is None else f" of NUMA node {one.memory_nodes}"
        text = f"{', '.join(what)}: {holders([one])}, {size(one.rss_bytes)}{nodes}"
        lines += folded(f"  {text}", width, indent="    ")
    if left := len(strangers) - len(largest):
        lines.append(f"  and {left} smaller ones")
    return lines


_NUMBER = re.compile(r"(?<=^gpus\[)\d+|(?<=[a-z])\d+(?=/)|(?<=^numa_nodes )\d+")
_PCI = re.compile(r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]: ")


def _unknown(machine: Machine, width: int) -> list[str]:
    """Facts that are missing for many PUs, nodes or GPUs alike, or for one reason, in one line."""
    alike: dict[tuple[str, str], list[int]] = {}
    for one in machine.missing:
        key = _NUMBER.sub("*", one.what, count=1), _PCI.sub("", one.why)
        number = _NUMBER.search(one.what)
        alike.setdefault(key, []).extend([int(number.group())] if number else [])
    whats: dict[tuple[str, str], list[str]] = {}
    for (what, why), numbers in alike.items():
        if numbers:
            what = what.replace("*", str(CpuSet(numbers)), 1)
        thing, dot, field = what.rpartition("].")
        whats.setdefault((f"{thing}{dot}", why), []).append(field if dot else what)
    lines: list[str] = []
    for (thing, why), fields in whats.items():
        lines += folded(f"not known: {thing}{', '.join(fields)}: {why}", width, indent="  ")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
