"""`auto` wishes answered together: NUMA nodes for CPU instances, groups of cards for GPU ones."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from engine.core.cpuset import CpuSet
from engine.core.errors import CannotPlace
from engine.core.layout import Instance
from engine.core.placing.core_choice import counted, ranked
from engine.core.placing.engine_traits import EngineTraits
from engine.core.placing.gpu_groups import GpuGuest, group_all
from engine.core.placing.memory_nodes import usable_memory
from engine.core.placing.memory_room import STRICT, MemoryRoom, gib
from engine.core.placing.packing import Guest, Room, seat_all
from engine.core.placing.shares import divided, free_cores, home
from engine.core.topology import Core, Gpu, Machine

_NO_PUS = CpuSet()
_PURPOSE = {
    "spread": "spread, so that instances share memory bandwidth least",
    "pack": "packed, so that other nodes stay empty",
    "isolate": "with no other instance on it",
}
_CUT_SHORT = "the search for the best places was cut short: there may be a better one"


@dataclass(frozen=True, slots=True)
class Choice:
    """Cores or GPUs for one `auto` wish, or why there are none."""

    cores: tuple[Core, ...] = ()
    gpus: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()
    refused: CannotPlace | None = None


def choose_gpus(
    machine: Machine,
    wishes: Sequence[Instance],
    taken: Collection[int],
    room: MemoryRoom,
    traits: Mapping[str, EngineTraits],
    *,
    closed: Collection[int | None] = (),
) -> dict[str, Choice]:
    """GPUs for each wish, by its name; `taken` are those that others hold, `closed` NUMA nodes
    have an isolated instance."""
    cards = [gpu for gpu in machine.gpus if gpu.computes]
    free = [gpu for gpu in cards if gpu.index not in taken and gpu.numa_node not in closed]
    used: dict[int | None, int] = {}
    for gpu in cards:
        if gpu.index in taken:
            used[gpu.numa_node] = used.get(gpu.numa_node, 0) + 1
    guests: list[GpuGuest] = []
    for wish in wishes:
        each = room.needs(wish, wish.gpus or 1).per_device_bytes or 0
        share = traits.get(wish.engine, EngineTraits()).memory_share
        guests.append(GpuGuest(wish.gpus or 1, int(each / share), wish.strategy))
    memory = {gpu.index: gpu.memory_bytes for gpu in free if gpu.memory_bytes is not None}
    answer = group_all(free, guests, used=used, memory=memory)
    choices: dict[str, Choice] = {}
    for wish, guest, chosen in zip(wishes, guests, answer.gpus, strict=True):
        if chosen is None:
            choices[wish.name] = Choice(refused=_no_gpus(guest, cards, free, memory))
            continue
        free_ones = f"GPU {', '.join(map(str, chosen))} of {len(free)} free"
        reasons = (free_ones,) if answer.exact else (free_ones, _CUT_SHORT)
        choices[wish.name] = Choice(gpus=chosen, reasons=reasons)
    return choices


def _no_gpus(
    guest: GpuGuest, cards: Sequence[Gpu], free: Sequence[Gpu], memory: Mapping[int, int]
) -> CannotPlace:
    if len(free) < guest.gpus:
        held = len(cards) - len(free)
        others = f", {held} held by others" if held else ""
        return CannotPlace(
            f"wants {_cards(guest.gpus)}, and this machine has {len(free)} free{others}",
            "Ask for fewer GPUs, stop an instance, or choose a slot on CPUs",
        )
    large = [gpu for gpu in free if memory.get(gpu.index, guest.bytes) >= guest.bytes]
    if len(large) < guest.gpus:
        most = max(memory.values(), default=0)
        return CannotPlace(
            f"needs {gib(guest.bytes)} on each card, and the largest free card has {gib(most)}",
            "Ask for more GPUs, a lower-bit form (weight_only), or a shorter context",
        )
    return CannotPlace(
        f"wants {_cards(guest.gpus)} of one model, and the other instances of this layout need "
        "the rest",
        "Ask for fewer GPUs or fewer instances",
    )


def _cards(count: int) -> str:
    return f"{count} GPU{'' if count == 1 else 's'}"


def choose_cores(
    machine: Machine,
    wishes: Sequence[Instance],
    taken: Collection[int],
    room: MemoryRoom,
    *,
    closed: Collection[int] = (),
    shared: CpuSet = _NO_PUS,
) -> dict[str, Choice]:
    """Cores for each wish, by its name; `taken` are PUs that others hold.

    Wishes for performance cores come first, then those for efficiency cores, then those that take
    any: each kind is answered as well as can be with what is left. NUMA nodes that are `closed`
    have an isolated instance; cores with `shared` PUs are taken last.
    """
    choices: dict[str, Choice] = {}
    gone = set(taken)
    shut = set(closed)
    hybrid = {core.kind for core in machine.cores} >= {"performance", "efficiency"}
    for kind in ("performance", "efficiency", "any") if hybrid else ("any",):
        group = [wish for wish in wishes if not hybrid or _kind(wish) == kind]
        if not group:
            continue
        pool = {
            node: [core for core in cores if kind == "any" or core.kind == kind]
            for node, cores in free_cores(machine, gone).items()
            if node not in shut
        }
        answer = _seat(machine, group, pool, gone, room, shared)
        if shut:
            answer = {name: _of_closed(choice, shut) for name, choice in answer.items()}
        choices |= answer
        gone |= {pu for one in answer.values() for core in one.cores for pu in core.pus}
        shut |= isolated(group, answer)
    return choices


def isolated(wishes: Sequence[Instance], choices: Mapping[str, Choice]) -> set[int]:
    """The NUMA nodes that are for one instance alone."""
    return {
        home(core)
        for wish in wishes
        if wish.strategy == "isolate"
        for core in choices[wish.name].cores
    }


def nodes_of_isolated_gpus(
    machine: Machine, wishes: Sequence[Instance], choices: Mapping[str, Choice]
) -> set[int | None]:
    """The NUMA nodes whose cards are for one instance alone."""
    theirs = {
        index for wish in wishes if wish.strategy == "isolate" for index in choices[wish.name].gpus
    }
    return {gpu.numa_node for gpu in machine.gpus if gpu.index in theirs}


def _of_closed(choice: Choice, shut: Collection[int]) -> Choice:
    """A refusal tells of the nodes that were not looked at."""
    if choice.refused is None:
        return choice
    nodes = CpuSet(node for node in shut if node >= 0)
    where = f"NUMA node {nodes}" if nodes else "the machine"
    why = f"{choice.refused.why}, {where} being for isolated instances alone"
    return replace(choice, refused=CannotPlace(why, choice.refused.do))


def _kind(wish: Instance) -> str:
    return wish.core_kind or "performance"


def _seat(
    machine: Machine,
    wishes: Sequence[Instance],
    free: Mapping[int, list[Core]],
    taken: Collection[int],
    room: MemoryRoom,
    shared: CpuSet,
) -> dict[str, Choice]:
    memory = usable_memory(machine)
    held: dict[int, int] = {}
    gone = CpuSet(taken)
    for core in machine.cores:
        if core.pus & machine.pus.usable and core.pus & gone:
            held[home(core)] = held.get(home(core), 0) + 1
    nodes = [node for node in sorted(free) if free[node]]
    rooms = [
        Room(
            len(free[node]),
            len(free[node]) + held.get(node, 0),
            max(0, left) if (left := room.left(node)) is not None and node in memory else None,
            fed=node in memory or not machine.numa_nodes,
        )
        for node in nodes
    ]
    guests = [
        Guest(
            wish.cores,
            room.at_least(wish) if wish.memory in STRICT else 0,
            wish.strategy,
        )
        for wish in wishes
    ]
    seating = seat_all(rooms, guests)
    choices: dict[str, Choice] = {}
    for number, node in enumerate(nodes):
        here = [wish for wish, seat in zip(wishes, seating.rooms, strict=True) if seat == number]
        cut = _cut(free[node], here, shared)
        had, left = len(free[node]), len(free[node]) - sum(one.cores or 0 for one in here)
        for wish in here:
            where = f"NUMA node {node}" if node >= 0 else "the machine"
            if wish.cores is not None:
                why = f"{where}: {_PURPOSE[wish.strategy]}"
            elif len(cut[wish.name]) < left:
                why = f"an even share of the {counted(left)} free on {where}"
            else:
                why = f"all free cores of {where} ({had})"
            told = (why,) if seating.exact else (why, _CUT_SHORT)
            choices[wish.name] = Choice(cores=cut[wish.name], reasons=told)
    for wish, guest, seat in zip(wishes, guests, seating.rooms, strict=True):
        if seat is None:
            choices[wish.name] = Choice(refused=_no_cores(guest, rooms))
    return choices


def _cut(
    cores: Sequence[Core], wishes: Sequence[Instance], shared: CpuSet
) -> dict[str, tuple[Core, ...]]:
    """A node's free cores for those who are on it: fixed numbers first, the rest evenly."""
    parts: dict[str, tuple[Core, ...]] = {}
    best = ranked(cores, shared=shared)
    at = 0
    for wish in wishes:
        if wish.cores is not None:
            parts[wish.name] = tuple(cores[i] for i in sorted(best[at : at + wish.cores]))
            at += wish.cores
    left = [cores[i] for i in sorted(best[at:])]
    even = [wish for wish in wishes if wish.cores is None]
    if even:
        for wish, share in zip(even, divided(left, len(even)), strict=True):
            parts[wish.name] = share
    return parts


def _no_cores(guest: Guest, rooms: Sequence[Room]) -> CannotPlace:
    most = max((room.cores for room in rooms), default=0)
    wanted = guest.cores or 1
    if not most:
        return CannotPlace(
            "no free core is left", "Stop an instance, ask for fewer, or name their cores"
        )
    if wanted > most:
        return CannotPlace(
            f"cores = {wanted}, and no NUMA node has more than {most} free",
            "Ask for fewer cores, or name a slot that spans NUMA nodes",
        )
    large = [room for room in rooms if room.bytes is None or room.bytes >= guest.bytes]
    if not large:
        largest = max(room.bytes or 0 for room in rooms)
        return CannotPlace(
            f"needs {gib(guest.bytes)}, and no NUMA node has more than {gib(largest)} left",
            "Choose a lower-bit form (weight_only), a shorter context, or a slot that spans nodes",
        )
    if guest.strategy == "isolate":
        return CannotPlace(
            'strategy = "isolate", and each NUMA node that is large enough has another instance',
            'Ask for fewer instances, or write strategy = "spread"',
        )
    return CannotPlace(
        "no free core is left"
        if guest.cores is None
        else f"cores = {wanted}, and the other instances of this layout need the rest",
        "Stop an instance, ask for fewer, or name their cores",
    )
