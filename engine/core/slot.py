"""The slot grammar: where on a machine an instance is wished to live."""

from dataclasses import dataclass
from difflib import get_close_matches

from engine.core.cpuset import CpuSet
from engine.core.errors import SlotError
from engine.core.topology import Core, Machine

GRAMMAR = (
    "machine · package:N · numa:N · numa:N,M · any of these /core:LIST · core:LIST · pu:LIST · "
    "gpu:N · gpu:N,M · auto · each numa · each package · each gpu"
)
_PLACES = ("machine", "package", "numa", "core", "pu", "gpu", "auto", "each")
_EACH = ("numa", "package", "gpu")


@dataclass(frozen=True, slots=True)
class Slot:
    """One parsed slot. `kind` is one of machine, package, numa, core, pu, gpu, auto, each."""

    kind: str
    indexes: CpuSet = CpuSet()
    """Which package, NUMA nodes, cores, PUs or GPUs; empty for machine, auto and each."""
    cores: CpuSet | None = None
    """`/core:LIST`: indexes counted within the place, None for all of it."""
    each: str | None = None
    """numa, package or gpu for `each …`."""

    @classmethod
    def parse(cls, text: str) -> "Slot":
        """Read a slot; raises SlotError that points at the character."""
        text = text.strip()
        if not text:
            raise _mistake(text, 0, "it is empty")
        place, slash, inner = text.partition("/")
        kind, colon, numbers = place.partition(":")
        if (words := text.replace(":", " ").split()) and words[0] == "each":
            if len(words) != 2 or words[1] not in _EACH or colon:
                why = "after 'each' come a space and numa, package or gpu"
                raise _mistake(text, len("each "), why, _EACH)
            return cls("each", each=words[1])
        if kind not in _PLACES:
            raise _mistake(text, 0, f"{_shortened(kind)!r} is not a place", _PLACES)
        if kind in ("machine", "auto"):
            if colon:
                raise _mistake(text, len(kind), f"{kind!r} takes no number")
            indexes = CpuSet()
        else:
            indexes = _indexes(text, len(kind) + 1, numbers)
        if kind == "package" and len(indexes) > 1:
            raise _mistake(text, len(kind) + 1, "one package at a time; for all use 'machine'")
        if not slash:
            return cls(kind, indexes)
        if kind not in ("machine", "package", "numa"):
            raise _mistake(text, len(place), f"{kind!r} has no cores inside it to choose from")
        word, _, numbers = inner.partition(":")
        if word != "core":
            why = f"{_shortened(word)!r} is not 'core:LIST'"
            raise _mistake(text, len(place) + 1, why, ("core",))
        return cls(kind, indexes, _indexes(text, len(place) + len("/core:"), numbers))

    def __str__(self) -> str:
        if self.kind == "each":
            return f"each {self.each}"
        place = f"{self.kind}:{self.indexes}" if self.indexes else self.kind
        return place if self.cores is None else f"{place}/core:{self.cores}"


def _indexes(text: str, position: int, numbers: str) -> CpuSet:
    try:
        indexes = CpuSet.parse(numbers)
    except ValueError as error:
        raise _mistake(text, position, str(error)) from None
    if not indexes:
        raise _mistake(text, position, "a number or a list like 0-3,8 is missing")
    return indexes


def _mistake(text: str, position: int, why: str, right: tuple[str, ...] = ()) -> SlotError:
    wrong = text[position:].replace("/", " ").replace(":", " ").split()
    near = get_close_matches(wrong[0].lower(), right, n=1, cutoff=0.5) if wrong else []
    hint = f"Did you mean {near[0]!r}? " if near else ""
    # What is missing at the end stands one character after it.
    character = min(position, len(text)) + 1
    return SlotError(
        what=f"Slot {_shortened(text)!r} has a mistake at character {character}",
        why=why,
        do=f"{hint}A slot is one of: {GRAMMAR}",
    )


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


def cores_of(slot: Slot, machine: Machine) -> tuple[Core, ...]:
    """The cores that the slot names on this machine; raises SlotError for what it has not.

    For `pu:` the cores that hold those PUs; for `gpu:` and `auto` every core of the machine.
    """
    inside = _inside(slot, machine)
    if slot.cores is None:
        return inside
    return _pick(slot, slot.cores, inside, str(slot).partition("/core:")[0])


def _inside(slot: Slot, machine: Machine) -> tuple[Core, ...]:
    match slot.kind:
        case "package":
            known = CpuSet(package.os_index for package in machine.packages)
            _check(slot, known, "package", "packages")
            return tuple(core for core in machine.cores if core.package in slot.indexes.pus)
        case "numa":
            known = CpuSet(node.os_index for node in machine.numa_nodes)
            _check(slot, known, "NUMA node", "NUMA nodes")
            return tuple(core for core in machine.cores if core.numa_nodes & slot.indexes)
        case "core":
            return _pick(slot, slot.indexes, machine.cores, "the machine")
        case "pu":
            _check(slot, machine.pus.online, "PU", "online PUs")
            return tuple(core for core in machine.cores if core.pus & slot.indexes)
        case "gpu":
            _check(slot, CpuSet(gpu.index for gpu in machine.gpus), "GPU", "GPUs")
            return machine.cores
        case _:
            return machine.cores


def _pick(slot: Slot, wanted: CpuSet, cores: tuple[Core, ...], place: str) -> tuple[Core, ...]:
    beyond = CpuSet(index for index in wanted if index >= len(cores))
    if beyond:
        has = f"cores 0-{len(cores) - 1}" if cores else "no cores"
        raise SlotError(
            what=f"Slot {str(slot)!r} does not exist here",
            why=f"{place} has {has}, not core {beyond}",
            do="Look at `slotdeck topo` and correct the slot",
        )
    return tuple(cores[index] for index in wanted)


def _check(slot: Slot, known: CpuSet, one: str, many: str) -> None:
    if slot.indexes <= known:
        return
    has = f"{many} {known}" if known else f"no {many}"
    raise SlotError(
        what=f"Slot {str(slot)!r} does not exist here",
        why=f"this machine has {has}, not {one} {slot.indexes - known}",
        do="Look at `slotdeck topo` and correct the slot",
    )
