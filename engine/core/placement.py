"""Wishes on slots answered with placements and refusals, each with its reasons.

The rules, in the order in which they are applied:

1. A slot names cores (or PUs, or GPUs whose NUMA node names the cores).
2. PUs that are offline or outside our cpuset are never used: dropped from a place such as
   `numa:0`, a refusal where they were asked for one by one.
3. One PU of each physical core; SMT siblings stay idle (siblings by the kernel's list, not by id).
4. `reserve_cores` cores, the last of the slot, stay free for the API process and the kernel.
5. No core twice: first the wishes with a place of their own, then GPUs, then `auto` with
   `cores`, the largest first, and at last the other `auto`; each group in the file's order.
6. A GPU's cores come from its NUMA node, with a share left for each free GPU beside it.
7. `auto` stays inside one NUMA node; shares are as even as the nodes allow.
8. Memory comes from the nodes of the cores; a node without memory borrows from the nearest.
9. Across NUMA nodes only when the slot says so, with the distance as a warning.
10. A port that the file names is taken; the others keep theirs or get the lowest free one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from engine.core.copies import copies_of
from engine.core.cpuset import CpuSet
from engine.core.errors import CannotPlace, SlotError
from engine.core.fingerprint import Expect
from engine.core.layout import Instance, Layout, Ports
from engine.core.memory_nodes import memory_of, usable_memory
from engine.core.shares import even_shares, free_cores, gpu_share, home, node_for
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
    gpus: Mapping[int, str] = field(default_factory=dict)
    """GPUs by index and who holds them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer to a layout: the wishes as expanded, and a placement or refusal for each."""

    wishes: tuple[Instance, ...]
    placements: tuple[Placement, ...]
    refusals: tuple[Refusal, ...]


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
    wishes: dict[str, Instance] = {}
    for wish in layout.instances:
        try:
            for copy in copies_of(wish, machine):
                if copy.name in wishes:
                    why = f"a copy of {wish.name} and another instance are both named {copy.name}"
                    refusals.append(Refusal(copy.name, why, "Rename one of them"))
                else:
                    wishes[copy.name] = copy
        except CannotPlace as refused:
            refusals.append(Refusal(wish.name, refused.why, refused.do))
    table = _Table(machine, held, layout, tuple(wishes.values()), reserve_cores or {})
    placed: dict[str, Placement] = {}
    for wish in _in_order(wishes.values()):
        try:
            placed[wish.name] = table.seat(wish)
        except CannotPlace as refused:
            refusals.append(Refusal(wish.name, refused.why, refused.do))
        except SlotError as error:
            refusals.append(Refusal(wish.name, f"{error.what}: {error.why}", error.do))
    placements = tuple(placed[name] for name in wishes if name in placed)
    return Plan(tuple(wishes.values()), placements, tuple(refusals))


def _in_order(wishes: Iterable[Instance]) -> list[Instance]:
    """The least free to choose comes first; sorting keeps the file's order inside a group."""

    def rank(wish: Instance) -> tuple[int, int]:
        kind = Slot.parse(wish.slot).kind
        if kind == "auto":
            return (3, 0) if wish.cores is None else (2, -wish.cores)
        return (1 if kind == "gpu" else 0), 0

    return sorted(wishes, key=rank)


def _unlike(expect: Expect | None, machine: Machine) -> tuple[str, ...]:
    """How this machine differs from the one that the layout was saved on."""
    if expect is None:
        return ()
    pairs = (
        ("packages", expect.packages, len(machine.packages)),
        ("NUMA nodes", expect.numa_nodes, len(machine.numa_nodes)),
        ("GPUs", None if expect.gpus is None else len(expect.gpus), len(machine.gpus)),
    )
    return tuple(
        f"the layout expects {wanted} {what}, this machine has {has}"
        for what, wanted, has in pairs
        if wanted is not None and wanted != has
    )


class _Table:
    """Who holds what while a layout is being placed."""

    def __init__(
        self,
        machine: Machine,
        held: Held,
        layout: Layout,
        wishes: tuple[Instance, ...],
        reserve_cores: Mapping[str, int],
    ) -> None:
        self._machine = machine
        # A core belongs to one instance, with all its SMT siblings.
        self._holder = {
            pu: name
            for name, pus in held.pus.items()
            for core in machine.cores
            if core.pus & pus
            for pu in core.pus
        }
        self._ports = dict(held.ports)
        self._preferred_ports = held.preferred_ports
        self._named_ports = {one.port: one.name for one in reversed(wishes) if one.port}
        self._names = frozenset(one.name for one in wishes)
        self._range: Ports = layout.ports
        self._reserve = reserve_cores
        self._gpu_holder = dict(held.gpus)
        self._unlike = _unlike(layout.expect, machine)
        self._even = sum(
            1 for one in wishes if one.cores is None and Slot.parse(one.slot).kind == "auto"
        )
        self._shares: list[tuple[Core, ...]] | None = None
        self._shared: dict[int, int] = {}

    def seat(self, wish: Instance) -> Placement:
        slot = Slot.parse(wish.slot)
        reasons: list[str] = []
        warnings: list[str] = list(self._unlike)
        gpus = tuple(slot.indexes) if slot.kind == "gpu" else ()
        match slot.kind:
            case "auto":
                cores = self._auto(wish, reasons)
                pus = self._first_pus(cores, str(slot), reasons)
            case "gpu":
                cores = self._near_gpus(slot, reasons)
                pus = self._first_pus(cores, str(slot), reasons)
            case "pu":
                cores, pus = self._named_pus(slot, reasons, warnings)
            case _:
                cores = self._of_place(slot, reasons)
                pus = self._first_pus(cores, str(slot), reasons)
        whole = CpuSet(pu for core in cores for pu in core.pus)
        pus, cores = self._leave_reserve(wish, pus, cores, reasons)
        memory = memory_of(self._machine, wish.memory, cores, reasons, warnings)
        port = self._port(wish)
        self._holder.update(dict.fromkeys(whole, wish.name))
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

    def _of_place(self, slot: Slot, reasons: list[str]) -> tuple[Core, ...]:
        named = cores_of(slot, self._machine)
        usable = self._machine.pus.usable
        lost = tuple(core for core in named if not core.pus & usable)
        if lost and (slot.cores is not None or slot.kind == "core"):
            raise CannotPlace(
                f"{slot} needs PU {_pus(lost)}, outside the PUs that we may use ({usable})",
                "Choose usable cores: `slotdeck topo` lists them",
            )
        cores = tuple(core for core in named if core.pus & usable)
        if not cores:
            raise CannotPlace(
                f"{slot} has no PU that we may use (usable: {usable or 'none'})",
                "Choose a slot with cores: `slotdeck topo` lists them",
            )
        self._refuse_taken(_pus(cores), str(slot))
        if lost:
            reasons.append(f"{_cores(len(lost))} of {slot} outside the PUs that we may use")
        return cores

    def _near_gpus(self, slot: Slot, reasons: list[str]) -> tuple[Core, ...]:
        cores_of(slot, self._machine)
        taken = {
            index: self._gpu_holder[index] for index in slot.indexes if index in self._gpu_holder
        }
        if taken:
            who = " and ".join(f"GPU {index} is held by {name}" for index, name in taken.items())
            raise CannotPlace(who, "Choose a free GPU, or stop that instance")
        free = free_cores(self._machine, self._holder)
        cores = gpu_share(self._machine, slot.indexes, self._gpu_holder, free)
        nodes = {gpu.numa_node for gpu in self._machine.gpus if gpu.index in slot.indexes}
        told = CpuSet(node for node in nodes if node is not None)
        where = f"NUMA node {told}, the node of GPU {slot.indexes}"
        if None in nodes:
            where = "any NUMA node, because firmware does not tell the GPU's"
        if not cores:
            raise CannotPlace(
                f"{slot} takes cores from {where}, and no core that we may use is free there",
                "Leave cores free there: give the other instances fewer, e.g. numa:0/core:0-7",
            )
        reasons.append(f"cores from {where}")
        return cores

    def _named_pus(
        self, slot: Slot, reasons: list[str], warnings: list[str]
    ) -> tuple[tuple[Core, ...], CpuSet]:
        cores = cores_of(slot, self._machine)
        usable = self._machine.pus.usable
        if beyond := slot.indexes - usable:
            raise CannotPlace(
                f"{slot} needs PU {beyond}, outside the PUs that we may use ({usable})",
                "Choose usable PUs: `slotdeck topo` lists them",
            )
        self._refuse_taken(slot.indexes, str(slot))
        reasons.append(f"{slot}: the PUs that the layout names")
        if len(slot.indexes) > len(cores):
            warnings.append(
                f"{len(slot.indexes)} PUs share {_cores(len(cores))}: SMT siblings compete"
            )
        return cores, slot.indexes

    def _refuse_taken(self, pus: CpuSet, slot: str) -> None:
        holders: dict[str, set[int]] = {}
        for pu in pus:
            if pu in self._holder:
                holders.setdefault(self._holder[pu], set()).add(pu)
        if holders:
            who = " and ".join(f"{name} (PU {CpuSet(held)})" for name, held in holders.items())
            raise CannotPlace(
                f"{slot} overlaps {who}",
                "Give each instance cores of its own, e.g. numa:0/core:0-7 and numa:0/core:8-15",
            )

    def _first_pus(self, cores: tuple[Core, ...], slot: str, reasons: list[str]) -> CpuSet:
        usable = self._machine.pus.usable
        first = CpuSet(min(core.pus & usable) for core in cores)
        siblings = len(_pus(cores)) - len(first)
        idle = f", {siblings} SMT sibling{'s' if siblings > 1 else ''} left idle"
        reasons.append(f"{slot}: {_cores(len(first))}, one PU each{idle if siblings else ''}")
        return first

    def _auto(self, wish: Instance, reasons: list[str]) -> tuple[Core, ...]:
        memory = usable_memory(self._machine)
        free = free_cores(self._machine, self._holder)
        most = max(map(len, free.values()), default=0)
        if wish.cores is not None:
            node = node_for(free, wish.cores, memory)
            if node is None:
                raise CannotPlace(
                    f"cores = {wish.cores}, and no NUMA node has more than {most} free",
                    "Ask for fewer cores, or name a slot that spans NUMA nodes",
                )
            cores = tuple(free[node][: wish.cores])
            reasons.append(f"{_where(node)} has the most free cores ({most})")
            return cores
        if self._shares is None:
            self._shares = even_shares(free, self._even, memory)
            self._shared = {node: len(cores) for node, cores in free.items()}
        if not self._shares:
            raise CannotPlace(
                "no free core is left", "Stop an instance, ask for fewer, or name their cores"
            )
        cores = self._shares.pop(0)
        node = home(cores[0])
        had = self._shared[node]
        even = f"an even share of the {_cores(had)} free on {_where(node)}"
        reasons.append(even if len(cores) < had else f"all free cores of {_where(node)} ({had})")
        return cores

    def _leave_reserve(
        self, wish: Instance, pus: CpuSet, cores: tuple[Core, ...], reasons: list[str]
    ) -> tuple[CpuSet, tuple[Core, ...]]:
        reserve = wish.reserve_cores
        if reserve is None:
            # The engine only asks; it does not lose its place over that.
            reserve = min(self._reserve.get(wish.engine, 0), len(cores) - 1)
        if not reserve:
            return pus, cores
        if reserve >= len(cores):
            raise CannotPlace(
                f"reserve_cores = {reserve} leaves none of the slot's {_cores(len(cores))}",
                "Reserve fewer cores or choose a larger slot",
            )
        kept = cores[:-reserve]
        left = pus - _pus(kept)
        reasons.append(f"{reserve} reserved for the API process and the kernel: PU {left}")
        return pus - left, kept

    def _port(self, wish: Instance) -> int:
        if wish.port is not None:
            holder = self._ports.get(wish.port)
            if holder is not None or self._named_ports[wish.port] != wish.name:
                raise CannotPlace(
                    f"port {wish.port} is taken by {holder or self._named_ports[wish.port]}",
                    "Choose another port, or leave it out to get a free one",
                )
            return wish.port
        kept = self._preferred_ports.get(wish.name)
        if kept is not None and kept not in self._ports and kept not in self._named_ports:
            return kept
        free = [
            port
            for port in range(self._range.first, self._range.last + 1)
            if port not in self._ports and port not in self._named_ports
        ]
        # Those that others of this layout want to keep are theirs; those of instances that the
        # layout ends are only free once they have ended, so they come last.
        theirs = {
            port
            for name, port in self._preferred_ports.items()
            if name in self._names - {wish.name}
        }
        ending = set(self._preferred_ports.values())
        free = [port for port in free if port not in theirs]
        if free:
            return min(free, key=lambda port: (port in ending, port))
        raise CannotPlace(
            f"no port is free in {self._range.first}-{self._range.last}",
            "Widen [ports] in the layout",
        )


def _pus(cores: tuple[Core, ...]) -> CpuSet:
    return CpuSet(pu for core in cores for pu in core.pus)


def _cores(count: int) -> str:
    return f"{count} core{'' if count == 1 else 's'}"


def _where(node: int) -> str:
    return f"NUMA node {node}" if node >= 0 else "the machine"


def moved(wish: Instance, slot: str) -> Instance:
    """The same wish on another slot; Slot.parse raises SlotError for a wrong one."""
    Slot.parse(slot)
    return msgspec.structs.replace(wish, slot=slot, count=None, cores=None)
