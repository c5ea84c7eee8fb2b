"""Which slots carried instances would get where the pointer is: the shape that they cover."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.control import Seat
from engine.core.cpuset import CpuSet
from engine.core.topology import Machine
from tui.drag import Cargo, Kind, core_of
from tui.present.map_groups import node_of, slot_pus
from tui.present.map_scene import cores_held, held
from tui.view import View


@dataclass(frozen=True, slots=True)
class Footprint:
    """The slots, or why there are none."""

    seats: tuple[Seat, ...] = ()
    why_not: str = ""

    @property
    def slot(self) -> str | None:
        """All of it as one slot of the map, to be lit."""
        kinds = {seat.slot.partition(":")[0] for seat in self.seats}
        if len(self.seats) < 2 or len(kinds) > 1 or kinds <= {"machine"}:
            return self.seats[0].slot if self.seats else None
        indexes = CpuSet()
        for seat in self.seats:
            indexes |= CpuSet.parse(seat.slot.partition(":")[2])
        return f"{kinds.pop()}:{indexes}"


def footprint(view: View, machine: Machine, cargo: Cargo, aimed: str | None) -> Footprint:
    """What is taken when it is dropped on the slot that is aimed at.

    1. An end that is resized, or drawn, goes to the core that is aimed at; the other stays.
    2. On a core an instance keeps its number of cores: it begins there, and is shifted back where
       it would leave its NUMA node for no need.
    3. On a GPU it keeps its number of GPUs.
    4. A single one takes the whole of any other place; several share what is free of it.
    """
    if aimed is None:
        return Footprint(why_not="choose a slot on the map")
    if cargo.kind is not Kind.MOVE:
        return _stretched(view, machine, cargo, aimed)
    if aimed.startswith("gpu:"):
        return _on_gpus(view, machine, cargo, aimed)
    sizes = [_size(view, machine, name, cargo.grown) for name in cargo.names]
    core = core_of(aimed)
    if core is not None and not (len(cargo.names) == 1 and _is_list(aimed)):
        return _in_a_row(machine, cargo.names, sizes, core)
    if len(cargo.names) == 1 and not cargo.grown:
        return Footprint((Seat(cargo.names[0], aimed),))
    return _shared(view, machine, cargo.names, sizes, aimed)


def _stretched(view: View, machine: Machine, cargo: Cargo, aimed: str) -> Footprint:
    name, core = cargo.names[0], core_of(aimed)
    anchor = core if cargo.kind is Kind.DRAW and cargo.anchor is None else cargo.anchor
    if anchor is None or core is None:
        if cargo.kind is Kind.RESIZE and aimed.startswith("gpu:"):
            return Footprint(why_not="an end goes to a core; move it to put it on a GPU")
        return Footprint((Seat(name, aimed),))
    last = core + (cargo.grown if core >= anchor else -cargo.grown)
    first, last = sorted((anchor, max(0, min(len(machine.cores) - 1, last))))
    return Footprint((Seat(name, _cores(range(first, last + 1))),))


def _in_a_row(
    machine: Machine, names: Sequence[str], sizes: Sequence[int], first: int
) -> Footprint:
    whole = sum(sizes)
    node = node_of(machine, f"core:{first}")
    inside = [
        at
        for at, core in enumerate(machine.cores)
        if node is not None and node in core.numa_nodes and core.pus & machine.pus.usable
    ]
    if first in inside and whole <= len(inside) and inside[-1] - first + 1 < whole:
        first = inside[-whole]
    row = [
        at
        for at, core in enumerate(machine.cores)
        if at >= first and (core.pus & machine.pus.usable or at == first)
    ][:whole]
    if len(row) < whole:
        return Footprint(why_not=f"{whole} cores are needed, and {len(row)} are left from here on")
    return Footprint(_dealt(names, sizes, row))


def _shared(
    view: View, machine: Machine, names: Sequence[str], sizes: Sequence[int], aimed: str
) -> Footprint:
    place = slot_pus(machine, aimed) & machine.pus.usable
    taken = CpuSet(pu for each in view.instances if each.name not in names for pu in held(each))
    free = [
        at for at, core in enumerate(machine.cores) if core.pus & place and not core.pus & taken
    ]
    if len(free) < sum(sizes):
        return Footprint(
            why_not=f"{sum(sizes)} cores are needed, and {aimed} has {len(free)} that are free"
        )
    return Footprint(_dealt(names, sizes, free))


def _on_gpus(view: View, machine: Machine, cargo: Cargo, aimed: str) -> Footprint:
    indexes = [gpu.index for gpu in machine.gpus]
    first = aimed[4:].partition(",")[0].partition("-")[0]
    if not first.isdigit() or int(first) not in indexes:
        return Footprint(why_not=f"there is no {aimed}")
    at, seats = indexes.index(int(first)), []
    for name in cargo.names:
        each = view.named(name)
        count = max(1, len(each.gpus) if each else 1)
        some = indexes[at : at + count]
        if len(some) < count:
            return Footprint(why_not=f"{name} needs {count} GPUs, and {len(some)} are left here")
        seats.append(Seat(name, f"gpu:{','.join(str(index) for index in some)}"))
        at += count
    return Footprint(tuple(seats))


def _size(view: View, machine: Machine, name: str, grown: int) -> int:
    instance = view.named(name)
    cores = len(cores_held(machine, instance))
    if not cores and instance is not None:  # it stopped, and would start where it was
        pus = slot_pus(machine, instance.slot)
        cores = sum(1 for core in machine.cores if core.pus & pus)
    return max(1, min(len(machine.cores), cores + grown))


def _dealt(names: Sequence[str], sizes: Sequence[int], cores: Sequence[int]) -> tuple[Seat, ...]:
    seats, at = [], 0
    for name, size in zip(names, sizes, strict=True):
        seats.append(Seat(name, _cores(cores[at : at + size])))
        at += size
    return tuple(seats)


def _cores(cores: Sequence[int]) -> str:
    return f"core:{CpuSet(cores)}"


def _is_list(slot: str) -> bool:
    return not slot.partition(":")[2].isdigit()
