"""Who holds what while a layout is being placed: instances take their seats one by one."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.errors import CannotPlace
from engine.core.layout import Instance, Ports
from engine.core.placing.auto import (
    Choice,
    choose_cores,
    choose_gpus,
    isolated,
    nodes_of_isolated_gpus,
)
from engine.core.placing.core_choice import (
    by_node,
    counted,
    leave_reserve,
    of_kind,
    of_wished_kind,
    preferred,
    pus_of,
    warn_of_mixture,
)
from engine.core.placing.engine_traits import EngineTraits
from engine.core.placing.held import Held
from engine.core.placing.memory_nodes import memory_of, price_of
from engine.core.placing.memory_room import MemoryRoom, Sizes
from engine.core.placing.port_choice import PortChoice
from engine.core.placing.shares import core_nodes, free_cores, gpu_share
from engine.core.placing.telling import Near, tell_nearness, warn_of_strangers
from engine.core.slot import Slot, cores_of
from engine.core.status import MemoryBinding
from engine.core.strangers import held_pus
from engine.core.topology import Core, Gpu, Machine

GPU_CORES = 4
"""For each GPU, where instances on cores want the rest: to feed it, and for tokens and text."""


@dataclass(frozen=True, slots=True)
class Seat:
    """What one instance got."""

    pus: CpuSet
    reserved: CpuSet
    memory: MemoryBinding
    gpus: tuple[int, ...]
    port: int
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]


class Table:
    """One machine, while one layout is placed on it."""

    def __init__(
        self,
        machine: Machine,
        held: Held,
        ports: Ports,
        wishes: Sequence[Instance],
        traits: Mapping[str, EngineTraits],
        sizes: Sizes | None,
        *,
        last: Collection[str] = (),
    ) -> None:
        """`last` are those who only get what the others leave."""
        self._last = last
        self._machine = machine
        self._wishes = wishes
        self._traits = traits
        # A core belongs to one instance, with all its SMT siblings.
        self._holder = {
            pu: name
            for name, pus in held.pus.items()
            for core in machine.cores
            if core.pus & pus
            for pu in core.pus
        }
        self._strangers = held.strangers
        self._ports = PortChoice(ports, wishes, held.ports, held.preferred_ports)
        self._gpu_holder = dict(held.gpus)
        self._core_nodes = core_nodes(machine)
        self._room = MemoryRoom(machine, held, sizes)
        self._choices: dict[str, Choice] = {}
        self._closed: set[int] = set()
        """NUMA nodes that an isolated instance has for itself."""
        self._closed_to_gpus: set[int | None] = set()
        """NUMA nodes whose cards one has for itself."""
        self._on_cores = any(
            Slot.parse(one.slot).kind == "auto" and not self.wants_gpus(one) for one in wishes
        )

    def seat(self, wish: Instance) -> Seat:
        """Places the instance and remembers it. Raises CannotPlace or SlotError."""
        slot = Slot.parse(wish.slot)
        if conflict := self._ports.conflict(wish):
            raise conflict
        reasons: list[str] = []
        warnings: list[str] = []
        gpus = self._gpus(wish, slot, reasons, warnings)
        cores, pus = self._cores(wish, slot, gpus, reasons, warnings)
        whole = CpuSet(pu for core in cores for pu in core.pus)
        near = Near(self._machine, self._strangers, pus, whole, gpus)
        warn_of_strangers(near, reasons, warnings)
        traits = self._traits_of(wish)
        groups = by_node(cores) if traits.binds_threads else [cores]
        kept, own = CpuSet(), list[Core]()
        for group in groups:
            inside = pus & _pus(group)
            wanted = traits.reserve_cores
            some, left = leave_reserve(wish.reserve_cores, wanted, inside, group, reasons)
            kept, own = kept | some, [*own, *left]
        reserved = pus - kept
        if not traits.binds_threads:
            pus, cores = kept, tuple(own)
        warn_of_mixture(cores, warnings)
        if wish.cpu_limit is not None and wish.cpu_limit >= len(pus):
            warnings.append(
                f"cpu_limit = {wish.cpu_limit:g} limits nothing: it has {len(pus)} PUs"
            )
        memory = memory_of(self._machine, wish.memory, cores, reasons, warnings)
        port = self._ports.choose(wish)
        if not gpus:
            self._room.take(wish, memory, reasons, warnings)
        self._holder.update(dict.fromkeys(whole, wish.name))
        self._ports.take(port, wish.name)
        self._gpu_holder.update((gpu.index, wish.name) for gpu in gpus)
        indexes = tuple(gpu.index for gpu in gpus)
        return Seat(pus, reserved, memory, indexes, port, tuple(reasons), tuple(warnings))

    # GPUs

    def _gpus(
        self, wish: Instance, slot: Slot, reasons: list[str], warnings: list[str]
    ) -> tuple[Gpu, ...]:
        traits = self._traits_of(wish)
        if slot.kind == "auto" and self.wants_gpus(wish):
            indexes = CpuSet(self._choice(wish, reasons).gpus)
        elif slot.kind == "gpu":
            cores_of(slot, self._machine)
            indexes = slot.indexes
        elif traits.device == "gpu":
            raise CannotPlace(
                f"the {wish.engine} engine computes on GPUs, and slot {slot} names none",
                'Write slot = "gpu:0" (more for tensor parallel), or "auto"',
            )
        else:
            return ()
        if traits.device == "cpu":
            raise CannotPlace(
                f"the {wish.engine} engine computes on CPUs, and would hold GPU {indexes} unused",
                'Choose a slot on CPUs such as "numa:0", or an engine that has Intel GPUs',
            )
        taken = {index: self._gpu_holder[index] for index in indexes if index in self._gpu_holder}
        if taken:
            who = " and ".join(f"GPU {index} is held by {name}" for index, name in taken.items())
            raise CannotPlace(who, "Choose a free GPU, or stop that instance")
        gpus = tuple(gpu for gpu in self._machine.gpus if gpu.index in indexes)
        if len(gpus) > 1:
            if not traits.tensor_parallel:
                raise CannotPlace(
                    f"the {wish.engine} engine cannot split a model over {len(gpus)} GPUs",
                    'Write one replica a GPU: slot = "each gpu"',
                )
            tell_nearness(self._machine, gpus, reasons, warnings)
        self._room.check_gpus(wish, gpus, traits.memory_share, reasons)
        if len(gpus) > 1 and self._room.fits_one(wish, gpus[0], traits.memory_share):
            warnings.append(
                f"the model fits one card: {len(gpus)} often answer sooner but write slower; "
                "measure one against all, or run a replica on each"
            )
        return gpus

    def wants_gpus(self, wish: Instance) -> bool:
        """Whether an `auto` wish is for GPUs."""
        return wish.gpus is not None or self._traits_of(wish).device == "gpu"

    # Cores

    def _cores(
        self,
        wish: Instance,
        slot: Slot,
        gpus: Sequence[Gpu],
        reasons: list[str],
        warnings: list[str],
    ) -> tuple[tuple[Core, ...], CpuSet]:
        if slot.kind == "pu":
            return self._named_pus(slot, reasons, warnings)
        where = str(slot)
        if gpus:
            indexes = CpuSet(gpu.index for gpu in gpus)
            where = f"gpu:{indexes}"
            cores = self._near_gpus(wish, indexes, where, reasons, warnings)
        elif slot.kind == "auto":
            cores = self._choice(wish, reasons).cores
        else:
            cores = self._of_place(wish, slot, reasons)
        return cores, pus_of(wish, cores, self._machine, where, reasons)

    def _of_place(self, wish: Instance, slot: Slot, reasons: list[str]) -> tuple[Core, ...]:
        named = cores_of(slot, self._machine)
        usable = self._machine.pus.usable
        lost = tuple(core for core in named if not core.pus & usable)
        one_by_one = slot.cores is not None or slot.kind == "core"
        if lost and one_by_one:
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
        cores = of_kind(wish, cores, str(slot), named=one_by_one, reasons=reasons)
        self._refuse_taken(_pus(cores), str(slot))
        if lost:
            reasons.append(f"{counted(len(lost))} of {slot} outside the PUs that we may use")
        return cores

    def _near_gpus(
        self,
        wish: Instance,
        indexes: CpuSet,
        slot: str,
        reasons: list[str],
        warnings: list[str],
    ) -> tuple[Core, ...]:
        own = {gpu.numa_node for gpu in self._machine.gpus if gpu.index in indexes}
        nodes = {self._core_nodes[node] for node in own}
        told = CpuSet(node for node in nodes if node is not None)
        where = f"NUMA node {told}, the node of GPU {indexes}"
        if nodes != own:
            bare = NodeSet(node for node in own if node is not None) - told
            where = f"NUMA node {told}, the nearest to GPU {indexes} with cores that we may use"
            warnings.append(
                f"NUMA node {bare}, the node of GPU {indexes}, has no core that we may use: its "
                f"cores come from node {told}, {price_of(self._machine, bare | told)}"
            )
        if None in nodes:
            where = "any NUMA node, because firmware does not tell the GPU's"
        cores: tuple[Core, ...] = ()
        # Where strangers sit on all of the node's cores, near to the GPU still is better than far.
        theirs = held_pus(self._strangers)
        for avoided in (theirs, CpuSet()):
            free = {
                node: of_wished_kind(wish, cores)
                for node, cores in free_cores(self._machine, {*self._holder, *avoided}).items()
                if node not in self._closed
            }
            if wish.cores is None:
                cores = gpu_share(self._machine, indexes, self._gpu_holder, free, self._core_nodes)
            elif len(near := of_wished_kind(wish, _on(told or free, free))) >= wish.cores:
                cores = preferred(near, wish.cores, shared=theirs)
            if cores:
                break
        if not cores:
            kind = f"{wish.core_kind or 'performance'} "
            if wish.core_kind == "any" or all(one.kind is None for one in self._machine.cores):
                kind = ""
            enough = f"no {kind}core that we may use is"
            if wish.cores is not None:
                enough = f"fewer than {counted(wish.cores, kind)} that we may use are"
            raise CannotPlace(
                f"{slot} takes cores from {where}, and {enough} free there",
                "Leave cores free there: give the other instances fewer, e.g. numa:0/core:0-7",
            )
        reasons.append(f"cores from {where}")
        most = GPU_CORES * len(indexes)
        if wish.cores is None and len(cores) > most and self._on_cores:
            cores = preferred(cores, most)
            reasons.append(f"{GPU_CORES} cores a GPU: the rest is for instances on cores")
        return of_kind(wish, cores, slot, named=False, reasons=reasons)

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
                f"{len(slot.indexes)} PUs share {counted(len(cores))}: SMT siblings compete"
            )
        return cores, slot.indexes

    def _refuse_taken(self, pus: CpuSet, slot: str) -> None:
        holding: dict[str, set[int]] = {}
        for pu in pus:
            if pu in self._holder:
                holding.setdefault(self._holder[pu], set()).add(pu)
        if holding:
            who = " and ".join(f"{name} (PU {CpuSet(held)})" for name, held in holding.items())
            raise CannotPlace(
                f"{slot} overlaps {who}",
                "Give each instance cores of its own, e.g. numa:0/core:0-7 and numa:0/core:8-15",
            )

    # auto and strangers

    def _choice(self, wish: Instance, reasons: list[str]) -> Choice:
        """The answer to an `auto` wish, made together with all others of its sort."""
        if wish.name not in self._choices:
            gpus = self.wants_gpus(wish)
            autos = [
                one
                for one in self._wishes
                if Slot.parse(one.slot).kind == "auto"
                and self.wants_gpus(one) == gpus
                and (one.name in self._last) == (wish.name in self._last)
                # One that is refused anyhow takes no place from the others.
                and not self._ports.conflict(one)
            ]
            if gpus:
                taken = {*self._gpu_holder, *(i for each in self._strangers for i in each.gpus)}
                closed = {*self._closed, *self._closed_to_gpus}
                answer = choose_gpus(
                    *(self._machine, autos, taken, self._room, self._traits), closed=closed
                )
                self._closed_to_gpus |= nodes_of_isolated_gpus(self._machine, autos, answer)
            else:
                answer = self._on_free_cores(autos)
                self._closed |= isolated(autos, answer)
            self._choices.update(answer)
        choice = self._choices[wish.name]
        # Each step asks for its part; the reasons are told once.
        reasons.extend(reason for reason in choice.reasons if reason not in reasons)
        if choice.refused is not None:
            raise choice.refused
        return choice

    def _on_free_cores(self, wishes: Sequence[Instance]) -> dict[str, Choice]:
        """Cores that nobody holds; only who finds none of those gets cores of strangers."""
        taken = {*self._holder, *held_pus(self._strangers)}
        answer = choose_cores(self._machine, wishes, taken, self._room, closed=self._closed)
        left = [wish for wish in wishes if answer[wish.name].refused is not None]
        if left and self._strangers:
            ours = {pu for one in answer.values() for core in one.cores for pu in core.pus}
            answer |= choose_cores(
                self._machine,
                left,
                {*self._holder, *ours},
                self._room,
                closed={*self._closed, *isolated(wishes, answer)},
                shared=held_pus(self._strangers),
            )
        return answer

    def _traits_of(self, wish: Instance) -> EngineTraits:
        return self._traits.get(wish.engine, EngineTraits())


def _on(nodes: Iterable[int], free: Mapping[int, Sequence[Core]]) -> list[Core]:
    return [core for node in nodes for core in free.get(node, ())]


def _pus(cores: Sequence[Core]) -> CpuSet:
    return CpuSet(pu for core in cores for pu in core.pus)
