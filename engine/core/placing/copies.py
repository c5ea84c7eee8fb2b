"""Wishes for several copies (`each …`, `count`) turned into one wish per copy."""

from collections import Counter

import msgspec

from engine.core.errors import CannotPlace
from engine.core.layout import Instance
from engine.core.placing.shares import home
from engine.core.slot import Slot
from engine.core.topology import Machine

_LARGEST_PORT = 65535
_PLACES = {
    "numa": "NUMA node with a usable PU",
    "package": "package with a usable PU",
    "gpu": "GPU",
}


def copies_of(wish: Instance, machine: Machine) -> list[Instance]:
    """The wish itself, or its copies named a-0, a-1, … Raises CannotPlace."""
    slot = Slot.parse(wish.slot)
    if wish.count == "fill":
        slots = [wish.slot] * _room(wish, machine)
    elif wish.count is not None and not isinstance(wish.count, int):
        raise CannotPlace(f"count = {wish.count!r} is no number", 'Write a number, or "fill"')
    elif slot.kind == "each":
        slots = _each(slot.each or "numa", wish.count, machine)
    elif wish.count is None:
        return [wish]
    else:
        slots = [wish.slot] * wish.count
    if wish.port is not None and wish.port + len(slots) - 1 > _LARGEST_PORT:
        raise CannotPlace(
            f"{len(slots)} copies from port {wish.port} on would pass port {_LARGEST_PORT}",
            "Name a lower first port, or leave port out to get free ones",
        )
    return [
        msgspec.structs.replace(
            wish,
            name=f"{wish.name}-{copy}",
            slot=place,
            count=None,
            port=None if wish.port is None else wish.port + copy,
        )
        for copy, place in enumerate(slots)
    ]


def _room(wish: Instance, machine: Machine) -> int:
    """How many such copies an empty machine has room for; at least one, which may be refused."""
    if wish.gpus is not None:
        return max(1, sum(gpu.computes for gpu in machine.gpus) // wish.gpus)
    homes = Counter(home(core) for core in machine.cores if core.pus & machine.pus.usable)
    return max(1, sum(cores // (wish.cores or cores) for cores in homes.values()))


def _each(kind: str, count: int | None, machine: Machine) -> list[str]:
    usable = machine.pus.usable
    places = {
        "numa": [f"numa:{node.os_index}" for node in machine.numa_nodes if node.cpus & usable],
        "package": [
            f"package:{package.os_index}"
            for package in machine.packages
            if any(core.pus & usable for core in machine.cores if core.package == package.os_index)
        ],
        "gpu": [f"gpu:{gpu.index}" for gpu in machine.gpus if gpu.computes],
    }[kind]
    if not places:
        raise CannotPlace(
            f"this machine has no {_PLACES[kind]} to put a copy on",
            'Choose another slot, e.g. "auto" with a count',
        )
    if count is not None and count > len(places):
        raise CannotPlace(
            f"count = {count}, and this machine has {len(places)} places of that kind: "
            f"{', '.join(places[:4])}{', …' if len(places) > 4 else ''}",
            f"Leave count out, or write count = {len(places)}",
        )
    return places[: count or len(places)]
