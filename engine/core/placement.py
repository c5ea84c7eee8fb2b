"""Wishes on slots answered with placements and refusals, each with its reasons.

The rules, in the order in which they are applied:

1. A slot names cores (or PUs, or GPUs whose NUMA node names the cores).
2. PUs that are offline or outside our cpuset are never used: dropped from a place such as
   `numa:0`, a refusal where they were asked for one by one.
3. One PU of each physical core; SMT siblings stay idle (siblings by the kernel's list, not by id).
4. `reserve_cores` cores, the last of the slot, stay free for the API process and the kernel.
5. No PU twice: first the wishes with a place of their own, in the file's order, then `auto`.
6. `auto` takes whole shares of one NUMA node, the one with most free cores for each wish.
7. Memory is bound to the nodes of the cores; a node without memory lends from the nearest.
8. Across NUMA nodes only when the slot says so, with the distance as a warning.
9. A port that the file names is taken; the others get the lowest free ones of `[ports]`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.errors import SlotError
from engine.core.layout import Instance, Layout, Ports
from engine.core.slot import Slot, cores_of
from engine.core.status import MemoryBinding
from engine.core.topology import Core, Machine


@dataclass(frozen=True, slots=True)
class Placement:
    """PUs, memory nodes and GPUs for one instance, with the reasons."""

    instance: str
    engine: str
    slot: str
    """The slot as the layout says it."""
    pus: CpuSet
    memory: MemoryBinding
    gpus: tuple[int, ...]
    tensor_parallel: int
    port: int
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an instance has no lawful place, and what would help."""

    instance: str
    why: str
    do: str


@dataclass(frozen=True, slots=True)
class Held:
    """What runs already and must be left alone: PUs and ports by the holder's name."""

    pus: Mapping[str, CpuSet]
    ports: Mapping[int, str]
    preferred_ports: Mapping[str, int] = field(default_factory=dict)
    """By instance: the port that it has now, kept where the layout names none."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer to a layout: the wishes as expanded, and a placement or refusal for each."""

    wishes: tuple[Instance, ...]
    placements: tuple[Placement, ...]
    refusals: tuple[Refusal, ...]


class _Refused(Exception):
    def __init__(self, why: str, do: str) -> None:
        self.why, self.do = why, do


def place(
    machine: Machine,
    layout: Layout,
    *,
    held: Held | None = None,
    reserve_cores: Mapping[str, int] | None = None,
) -> Plan:
    """Answer every wish of the layout for this machine; deterministic, changes nothing.

    `held` is what stays running beside the layout. `reserve_cores` is what each engine asks to
    be left free when the layout does not say.
    """
    held = held or Held({}, {})
    refusals: list[Refusal] = []
    wishes: list[Instance] = []
    for wish in layout.instances:
        try:
            wishes += _expand(wish, machine)
        except _Refused as refused:
            refusals.append(Refusal(wish.name, refused.why, refused.do))
    table = _Table(machine, held, layout.ports, reserve_cores or {})
    placed: dict[str, Placement] = {}
    in_order = [wish for wish in wishes if Slot.parse(wish.slot).kind != "auto"]
    autos = [wish for wish in wishes if Slot.parse(wish.slot).kind == "auto"]
    named_ports = {wish.port: wish.name for wish in reversed(wishes) if wish.port is not None}
    for position, wish in enumerate([*in_order, *autos]):
        waiting = len(in_order) + len(autos) - position
        try:
            placed[wish.name] = table.seat(wish, waiting, named_ports)
        except _Refused as refused:
            refusals.append(Refusal(wish.name, refused.why, refused.do))
        except SlotError as error:
            refusals.append(Refusal(wish.name, f"{error.what}: {error.why}", error.do))
    placements = tuple(placed[wish.name] for wish in wishes if wish.name in placed)
    return Plan(tuple(wishes), placements, tuple(refusals))


def _expand(wish: Instance, machine: Machine) -> list[Instance]:
    """Turn `each …` and `count` into one wish per copy, named a-0, a-1, …"""
    slot = Slot.parse(wish.slot)
    if slot.kind == "each":
        places = {
            "numa": [
                f"numa:{node.os_index}"
                for node in machine.numa_nodes
                if node.cpus & machine.pus.usable
            ],
            "package": [f"package:{package.os_index}" for package in machine.packages],
            "gpu": [f"gpu:{gpu.index}" for gpu in machine.gpus],
        }[slot.each or "numa"]
        if not places:
            raise _Refused(
                f"this machine has no {slot.each} to put a copy on", "Choose another slot"
            )
        if wish.count is not None and wish.count > len(places):
            raise _Refused(
                f"count = {wish.count}, and this machine has {len(places)} {slot.each} places",
                f"Leave count out, or write count = {len(places)}",
            )
        slots = places[: wish.count or len(places)]
    else:
        slots = [wish.slot] * (wish.count or 1)
        if wish.count is None:
            return [wish]
    return [
        msgspec.structs.replace(
            wish,
            name=f"{wish.name}-{copy}",
            slot=place_of_copy,
            count=None,
            port=None if wish.port is None else wish.port + copy,
        )
        for copy, place_of_copy in enumerate(slots)
    ]


class _Table:
    """Who holds what while a layout is being placed."""

    def __init__(
        self, machine: Machine, held: Held, ports: Ports, reserve_cores: Mapping[str, int]
    ) -> None:
        self._machine = machine
        self._holder = {pu: name for name, pus in held.pus.items() for pu in pus}
        self._ports = dict(held.ports)
        self._preferred_ports = held.preferred_ports
        self._range = ports
        self._reserve = reserve_cores
        self._gpu_holder: dict[int, str] = {}

    def seat(self, wish: Instance, waiting: int, named_ports: Mapping[int, str]) -> Placement:
        slot = Slot.parse(wish.slot)
        reasons: list[str] = []
        warnings: list[str] = []
        gpus = tuple(slot.indexes) if slot.kind == "gpu" else ()
        for index in gpus:
            if index in self._gpu_holder:
                raise _Refused(
                    f"GPU {index} is held by {self._gpu_holder[index]}", "Choose a free GPU"
                )
        if slot.kind == "auto":
            pus, cores = self._auto(wish, waiting, reasons)
        elif slot.kind == "pu":
            cores = cores_of(slot, self._machine)
            pus = self._named(slot.indexes, str(slot))
        else:
            pus, cores = self._from_slot(slot, reasons)
        pus, cores = self._leave_reserve(wish, pus, cores, reasons)
        memory = self._memory(wish, cores, reasons, warnings)
        port = self._port(wish, named_ports)
        for core in cores:
            for pu in core.pus:
                self._holder.setdefault(pu, wish.name)
        for pu in pus:
            self._holder[pu] = wish.name
        self._ports[port] = wish.name
        self._gpu_holder.update(dict.fromkeys(gpus, wish.name))
        return Placement(
            instance=wish.name,
            engine=wish.engine,
            slot=wish.slot,
            pus=pus,
            memory=memory,
            gpus=gpus,
            tensor_parallel=max(1, len(gpus)),
            port=port,
            reasons=tuple(reasons),
            warnings=tuple(warnings),
        )

    def _from_slot(self, slot: Slot, reasons: list[str]) -> tuple[CpuSet, tuple[Core, ...]]:
        cores = cores_of(slot, self._machine)
        usable = self._machine.pus.usable
        if slot.kind == "gpu":
            cores = self._near_gpus(slot.indexes, cores, reasons)
        named = slot.cores is not None or slot.kind == "core"
        lost = tuple(core for core in cores if not core.pus & usable)
        if lost and named:
            pus = CpuSet(pu for core in lost for pu in core.pus)
            raise _Refused(
                f"{slot} needs PU {pus}, outside the PUs that we may use ({usable})",
                "Choose usable cores: `slotdeck topo` lists them",
            )
        if lost:
            reasons.append(f"{len(lost)} cores of {slot} are outside the PUs that we may use")
        cores = tuple(core for core in cores if core.pus & usable)
        if not cores:
            raise _Refused(
                f"{slot} has no PU that we may use (usable: {usable or 'none'})",
                "Choose a slot with cores: `slotdeck topo` lists them",
            )
        self._refuse_taken(CpuSet(pu for core in cores for pu in core.pus & usable), str(slot))
        return self._first_pus(cores, str(slot), reasons), cores

    def _near_gpus(
        self, gpus: CpuSet, cores: tuple[Core, ...], reasons: list[str]
    ) -> tuple[Core, ...]:
        """Free cores of the GPUs' own NUMA nodes; all free ones where firmware does not say."""
        nodes = {gpu.numa_node for gpu in self._machine.gpus if gpu.index in gpus}
        usable = self._machine.pus.usable
        if None in nodes:
            reasons.append("firmware does not say which NUMA node the GPU is on: any core")
            near = cores
        else:
            wanted = NodeSet(node for node in nodes if node is not None)
            reasons.append(f"cores from NUMA node {wanted}, the node of GPU {gpus}")
            near = tuple(core for core in cores if core.numa_nodes & wanted)
        free = tuple(
            core for core in near if core.pus & usable and not core.pus.pus & self._holder.keys()
        )
        others = sum(
            1 for gpu in self._machine.gpus if gpu.index not in self._gpu_holder
        )  # leave a share for the GPUs that are still free
        share = max(1, len(free) * len(gpus) // max(others, len(gpus)))
        return free[:share]

    def _named(self, pus: CpuSet, slot: str) -> CpuSet:
        beyond = pus - self._machine.pus.usable
        if beyond:
            raise _Refused(
                f"{slot} needs PU {beyond}, outside the PUs that we may use "
                f"({self._machine.pus.usable})",
                "Choose usable PUs: `slotdeck topo` lists them",
            )
        self._refuse_taken(pus, slot)
        return pus

    def _refuse_taken(self, pus: CpuSet, slot: str) -> None:
        holders: dict[str, set[int]] = {}
        for pu in pus:
            if pu in self._holder:
                holders.setdefault(self._holder[pu], set()).add(pu)
        if holders:
            who = " and ".join(f"{name} (PU {CpuSet(held)})" for name, held in holders.items())
            raise _Refused(
                f"{slot} overlaps {who}",
                "Give each instance cores of its own, e.g. numa:0/core:0-7 and numa:0/core:8-15",
            )

    def _first_pus(self, cores: tuple[Core, ...], slot: str, reasons: list[str]) -> CpuSet:
        usable = self._machine.pus.usable
        first = CpuSet(min(core.pus & usable) for core in cores)
        siblings = sum(len(core.pus & usable) for core in cores) - len(first)
        count = f"{len(first)} core{'s' if len(first) > 1 else ''}"
        idle = f", {siblings} SMT siblings left idle" if siblings else ""
        reasons.append(f"{slot}: {count}, one PU each{idle}")
        return first

    def _auto(
        self, wish: Instance, waiting: int, reasons: list[str]
    ) -> tuple[CpuSet, tuple[Core, ...]]:
        usable = self._machine.pus.usable
        free: dict[int, list[Core]] = {}
        for core in self._machine.cores:
            if core.pus & usable and not core.pus.pus & self._holder.keys():
                node = min(core.numa_nodes) if core.numa_nodes else -1
                free.setdefault(node, []).append(core)
        if not free:
            raise _Refused("no free core is left", "Stop an instance or ask for fewer of them")
        node = max(free, key=lambda index: (len(free[index]), -index))
        # The waiting ones spread over the nodes; this many of them will share this one.
        sharing = max(1, -(-waiting // len(free)))
        wanted = wish.cores or max(1, len(free[node]) // sharing)
        if wanted > len(free[node]):
            raise _Refused(
                f"cores = {wanted}, and no NUMA node has more than {len(free[node])} free cores",
                "Ask for fewer cores, or name a slot that spans NUMA nodes",
            )
        cores = tuple(free[node][:wanted])
        where = f"NUMA node {node} has the most free cores ({len(free[node])})"
        reasons.append(where if node >= 0 else f"the machine has {len(free[node])} free cores")
        return self._first_pus(cores, "auto", reasons), cores

    def _leave_reserve(
        self, wish: Instance, pus: CpuSet, cores: tuple[Core, ...], reasons: list[str]
    ) -> tuple[CpuSet, tuple[Core, ...]]:
        asked = wish.reserve_cores
        reserve = self._reserve.get(wish.engine, 0) if asked is None else asked
        if not reserve:
            return pus, cores
        if reserve >= len(cores):
            raise _Refused(
                f"reserve_cores = {reserve} leaves none of the slot's {len(cores)} cores",
                "Reserve fewer cores or choose a larger slot",
            )
        kept = CpuSet(pu for core in cores[:-reserve] for pu in core.pus & pus)
        reasons.append(f"{reserve} reserved for the API process and the kernel: PU {pus - kept}")
        return kept, cores

    def _memory(
        self, wish: Instance, cores: tuple[Core, ...], reasons: list[str], warnings: list[str]
    ) -> MemoryBinding:
        machine = self._machine
        near = NodeSet(node for core in cores for node in core.numa_nodes)
        if len(near) > 1:
            far = [
                machine.distance(origin, target)
                for origin in near
                for target in near
                if origin != target
            ]
            known = [distance for distance in far if distance is not None]
            price = f"distance {max(known)} against 10 at home" if known else "distance not told"
            warnings.append(f"spans NUMA nodes {near}: {price}; one instance per node avoids it")
        if wish.memory == "local" or not machine.numa_nodes:
            return MemoryBinding("local", "")
        filled = NodeSet(node.os_index for node in machine.numa_nodes if node.memory_bytes != 0)
        allowed = near & filled & machine.usable_nodes
        if not allowed:
            rest = sorted(
                filled & machine.usable_nodes,
                key=lambda node: min(
                    (machine.distance(origin, node) or 255 for origin in near), default=255
                ),
            )
            if not rest:
                raise _Refused(
                    f"no NUMA node with memory may be used (allowed: {machine.usable_nodes})",
                    'Widen the cpuset\'s mems, or write memory = "local"',
                )
            allowed = NodeSet(rest[:1])
            warnings.append(f"NUMA node {near} has no memory that we may use: node {allowed}")
        reasons.append(f"memory {wish.memory} on NUMA node {allowed}, the node of its cores")
        return MemoryBinding(wish.memory, str(allowed))

    def _port(self, wish: Instance, named: Mapping[int, str]) -> int:
        if wish.port is not None:
            holder = self._ports.get(wish.port)
            if holder is not None or named.get(wish.port) != wish.name:
                raise _Refused(
                    f"port {wish.port} is taken by {holder or named.get(wish.port)}",
                    "Choose another port, or leave it out to get a free one",
                )
            return wish.port
        kept = self._preferred_ports.get(wish.name)
        if kept is not None and kept not in self._ports and kept not in named:
            return kept
        wanted = {port for name, port in self._preferred_ports.items() if name != wish.name}
        for port in range(self._range.first, self._range.last + 1):
            if port not in self._ports and port not in named and port not in wanted:
                return port
        raise _Refused(
            f"no port is free in {self._range.first}-{self._range.last}",
            "Widen [ports] in the layout",
        )


def moved(wish: Instance, slot: str) -> Instance:
    """The same wish on another slot; Slot.parse raises SlotError for a wrong one."""
    Slot.parse(slot)
    return msgspec.structs.replace(wish, slot=slot, count=None, cores=None)
