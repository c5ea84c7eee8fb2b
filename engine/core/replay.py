"""A saved layout on the machine at hand: its slots as they are, renumbered, or a refusal.

Only slots that name numbers are rewritten. `auto`, `each …` and `machine` mean the same on every
machine; they are refused with the others where the machine is not the one of `[expect]`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from engine.core.cpuset import CpuSet
from engine.core.errors import MachineDiffers, SlotError
from engine.core.layout import Instance, Layout
from engine.core.likeness.fingerprint import shape_expected
from engine.core.likeness.renumbering import Renumbering, renumbering
from engine.core.likeness.shape import Shape, shape_of
from engine.core.likeness.unlike import unlike, unlike_counts
from engine.core.slot import Slot
from engine.core.topology import Machine


@dataclass(frozen=True, slots=True)
class Replay:
    """What a layout means on this machine."""

    verdict: Literal["equal", "compatible"]
    """The same numbering, or the same shape under another one."""
    layout: Layout
    """With slots in this machine's numbers, and without `[expect]`: it has been met."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """By instance (its name in the layout): how its slot was rewritten, in words."""


def replay(layout: Layout, machine: Machine) -> Replay:
    """Compare `[expect]` with this machine and put the slots into its numbers.

    Raises MachineDiffers where the machine has another shape, SlotError where a slot names what
    the saved machine did not have, LayoutError where `[expect]` contradicts itself. A layout
    without `[expect]` is equal. Doing it twice changes nothing more.
    """
    met = msgspec.structs.replace(layout, expect=None)
    expect = layout.expect
    if expect is None:
        return Replay("equal", met)
    here = shape_of(machine)
    saved = shape_expected(expect)
    differences = unlike_counts(expect, machine)
    numbers = None
    if saved is not None:
        numbers = renumbering(saved, here)
        if numbers is None:
            differences = differences or unlike(saved, here)
    if differences:
        raise MachineDiffers(
            what=f"Layout {layout.name} was saved on another machine",
            why="; ".join(differences),
            do="Remove [expect] from the file to place it anyway, "
            "or save it again on this machine",
        )
    if saved is None or numbers is None or numbers.is_identity:
        return Replay("equal", met)
    notes: dict[str, str] = {}
    instances: list[Instance] = []
    for wish in layout.instances:
        old = Slot.parse(wish.slot)
        new = _renumbered(wish, old, numbers, saved, here)
        if new != old:
            notes[wish.name] = f"{old} of the saved machine is {new} here"
            wish = msgspec.structs.replace(wish, slot=str(new))
        instances.append(wish)
    return Replay("compatible", msgspec.structs.replace(met, instances=tuple(instances)), notes)


def _renumbered(
    wish: Instance, slot: Slot, numbers: Renumbering, saved: Shape, here: Shape
) -> Slot:
    place = slot
    match slot.kind:
        case "package":
            place = Slot("package", _mapped(wish, slot.indexes, numbers.packages, "packages"))
        case "numa":
            place = Slot("numa", _mapped(wish, slot.indexes, numbers.nodes, "NUMA nodes"))
        case "gpu":
            place = Slot("gpu", _mapped(wish, slot.indexes, numbers.gpus, "GPUs"))
        case "pu":
            place = Slot("pu", _mapped(wish, slot.indexes, numbers.pus, "PUs"))
        case "core":
            place = Slot("core", _mapped(wish, slot.indexes, numbers.cores, "cores"))
        case _:
            pass
    if slot.cores is None:
        return place
    # Cores are counted within their place, so the count begins anew on each machine.
    inside = saved.cores_in(slot.kind, slot.indexes)
    inside_here = {
        core: position for position, core in enumerate(here.cores_in(place.kind, place.indexes))
    }
    within = {position: inside_here[numbers.cores[core]] for position, core in enumerate(inside)}
    cores = _mapped(wish, slot.cores, within, f"cores of {str(slot).partition('/')[0]}")
    return Slot(place.kind, place.indexes, cores)


def _mapped(wish: Instance, indexes: CpuSet, numbers: Mapping[int, int], many: str) -> CpuSet:
    if beyond := CpuSet(index for index in indexes if index not in numbers):
        raise SlotError(
            what=f"Slot {wish.slot!r} of {wish.name} was not on the saved machine",
            why=f"its [expect] tells of {many} {CpuSet(numbers) or 'none'}, not of {beyond}",
            do="Correct the slot, or remove [expect] where slots are in this machine's numbers",
        )
    return CpuSet(numbers[index] for index in indexes)
