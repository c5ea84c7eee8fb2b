"""Wishes on slots answered with placements and refusals, each with its reasons.

The rules, in the order in which they are applied:

1. A slot names cores (or PUs, or GPUs whose NUMA node names the cores).
2. PUs that are offline or outside our cpuset are never used: dropped from a place such as
   `numa:0`, a refusal where they were asked for one by one.
3. No core and no GPU twice: first the wishes with a place of their own, then GPUs that are named,
   then `auto` on GPUs, then `auto` on cores, at last copies that fill what is left; each group in
   the file's order.
4. One PU of each physical core; SMT siblings stay idle unless `smt` asks for them (siblings by
   the kernel's list, not by id).
5. Performance cores before efficiency cores, which are left out where there are both; where only
   some are taken, those that may run faster come first.
6. `auto` is answered for all of its wishes at once, as well as can be: `packing` for NUMA nodes,
   `gpu_groups` for cards, each with its written objective. It stays inside one NUMA node.
7. Strangers (programs that are not ours and are pinned or hold a GPU) are avoided by `auto` as
   long as there is anything else, and told of where an instance gets what they hold.
8. `reserve_cores` cores, the slowest, else the last of the slot, stay free of computing threads,
   for the API process and the kernel.
9. GPUs of one instance are tensor parallel: their number divides the model's heads, near ones are
   taken first, and the distance is told. Their cores and memory come from their own NUMA node,
   with a share left for each free GPU beside them.
10. Memory comes from the nodes of the cores; a node without memory borrows from the nearest.
11. Weights and KV cache fit into those nodes or cards, and into the instance's own memory limit,
    where their size is known.
12. Across NUMA nodes only when the slot says so, with the distance as a warning; nodes that are
    uneven are taken as they are, never divided by a number.
13. A port that the file names is taken; the others keep theirs or get the lowest free one.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace

import msgspec

from engine.core.errors import CannotPlace, SlotError
from engine.core.layout import Instance, Layout
from engine.core.placed import Placement as Placement
from engine.core.placed import Refusal as Refusal
from engine.core.placing.copies import copies_of
from engine.core.placing.engine_traits import EngineTraits
from engine.core.placing.held import Held
from engine.core.placing.memory_room import Sizes
from engine.core.placing.table import Table
from engine.core.slot import Slot
from engine.core.topology import Machine


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
    traits: Mapping[str, EngineTraits] | None = None,
    sizes: Sizes | None = None,
) -> Plan:
    """Answer every wish of the layout for this machine; deterministic, changes nothing.

    `held` is what stays running beside the layout, `traits` what is known of each engine, `sizes`
    what is known of the models; left out, nothing is.
    """
    held = held or Held({}, {})
    traits = traits or {}
    refusals: list[Refusal] = []
    wishes: dict[str, Instance] = {}
    families: list[list[str]] = []
    filling: dict[str, list[str]] = {}
    for wish in layout.instances:
        try:
            copies = copies_of(wish, machine)
        except CannotPlace as refused:
            refusals.append(Refusal(wish.name, refused.why, refused.do))
            continue
        families.append([copy.name for copy in copies])
        if wish.count == "fill":
            filling |= dict.fromkeys(families[-1], families[-1])
        for copy in copies:
            if copy.name in wishes:
                why = f"a copy of {wish.name} and another instance are both named {copy.name}"
                refusals.append(Refusal(copy.name, why, "Rename one of them"))
            else:
                wishes[copy.name] = copy
    table = Table(
        machine, held, layout.ports, tuple(wishes.values()), traits, sizes, last=filling.keys()
    )
    placed: dict[str, Placement] = {}
    for wish in _in_order(wishes.values(), table, filling):
        try:
            seat = table.seat(wish)
        except CannotPlace as refused:
            if any(name in placed for name in filling.get(wish.name, ())):
                del wishes[wish.name]  # it was to fill what there is, and that is full
                continue
            refusals.append(Refusal(wish.name, refused.why, refused.do))
            continue
        except SlotError as error:
            refusals.append(Refusal(wish.name, f"{error.what}: {error.why}", error.do))
            continue
        placed[wish.name] = Placement(
            instance=wish.name,
            engine=wish.engine,
            slot=wish.slot,
            pus=seat.pus,
            memory=seat.memory,
            gpus=seat.gpus,
            tensor_parallel=max(1, len(seat.gpus)),
            port=seat.port,
            reasons=(*seat.reasons, *_limited(wish)),
            warnings=seat.warnings,
            reserved=seat.reserved,
            limits=wish.limits,
        )
    for family in families:
        _tell_uneven(family, placed)
    placements = tuple(placed[name] for name in wishes if name in placed)
    return Plan(tuple(wishes.values()), placements, tuple(refusals))


def _limited(wish: Instance) -> list[str]:
    return [f"at most {' and '.join(wish.limits.words())}"] if wish.limits else []


def _in_order(wishes: Iterable[Instance], table: Table, filling: Container[str]) -> list[Instance]:
    """The least free to choose comes first; sorting keeps the file's order inside a group."""

    def rank(wish: Instance) -> int:
        kind = Slot.parse(wish.slot).kind
        if kind == "auto":
            return (2 if table.wants_gpus(wish) else 3) + 2 * (wish.name in filling)
        return 1 if kind == "gpu" else 0

    return sorted(wishes, key=rank)


def _tell_uneven(family: Iterable[str], placed: dict[str, Placement]) -> None:
    """Copies with unequal numbers of PUs will not be equally fast: say so."""
    seats = [placed[name] for name in family if name in placed]
    sizes = [len(seat.pus) for seat in seats]
    if len(set(sizes)) > 1:
        told = f"the copies have {min(sizes)} to {max(sizes)} PUs: their places are uneven"
        for seat in seats:
            placed[seat.instance] = replace(seat, reasons=(*seat.reasons, told))


def moved(wish: Instance, slot: str) -> Instance:
    """The same wish on another slot; Slot.parse raises SlotError for a wrong one."""
    Slot.parse(slot)
    return msgspec.structs.replace(wish, slot=slot, count=None, cores=None, gpus=None)
