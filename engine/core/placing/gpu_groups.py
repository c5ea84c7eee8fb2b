"""Which GPUs each `auto` instance gets: the best groups under one written objective.

The objective, in this order:

1. As many instances as possible have their GPUs.
2. The GPUs of a tensor-parallel instance are near each other: below one PCIe switch (price 0),
   below one root port (1), on one NUMA node (2), anywhere (3); the sum of the prices is small.
3. `spread` and `isolate`: GPUs in use are even over the NUMA nodes; `pack`: on few nodes.

A group is of one model of card: the slowest decides the speed of all. Ties go to the lowest
indexes. Cards that are alike and equally near to all others are interchangeable, so the search
runs over how many of each such set are free; that is exact. Past `BUDGET` steps each instance
takes the cheapest group that leaves the larger sets whole.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

from engine.core.topology import Gpu

BUDGET = 3_000
"""States of the exact search, some 25 ms."""
_MOST_WAYS = 400
"""Groups looked at for one instance."""
_ANYWHERE = 3

Free = tuple[int, ...]
"""How many cards of each set are free."""


@dataclass(frozen=True, slots=True)
class GpuGuest:
    """An instance that wants `gpus` cards with `bytes` of free memory on each."""

    gpus: int
    bytes: int = 0
    strategy: str = "spread"


@dataclass(frozen=True, slots=True)
class Grouping:
    """For each guest the indexes of its GPUs, None where there were none."""

    gpus: tuple[tuple[int, ...] | None, ...]
    exact: bool
    """Whether nothing can be better; False when the search was cut short."""


def price(gpus: Sequence[Gpu]) -> int:
    """How far GPUs are from each other: 0 one switch, 1 one root port, 2 one NUMA node, 3 more."""
    if len(gpus) < 2:
        return 0
    shared = 0
    for level in zip(*(gpu.pci_path[:-1] for gpu in gpus), strict=False):
        if len(set(level)) > 1:
            break
        shared += 1
    if shared:
        return 0 if shared > 1 else 1
    nodes = {gpu.numa_node for gpu in gpus}
    return 2 if len(nodes) == 1 and None not in nodes else _ANYWHERE


def group_all(
    gpus: Sequence[Gpu],
    guests: Sequence[GpuGuest],
    *,
    used: Mapping[int | None, int] | None = None,
    memory: Mapping[int, int] | None = None,
    budget: int = BUDGET,
) -> Grouping:
    """The best groups of these free GPUs; deterministic.

    `used` is how many GPUs of each NUMA node others hold, `memory` the free bytes of a GPU by its
    index where that is known.
    """
    return _Groups(gpus, guests, used or {}, memory or {}, budget).run()


def cost(
    gpus: Sequence[Gpu],
    guests: Sequence[GpuGuest],
    chosen: Sequence[Sequence[int] | None],
    used: Mapping[int | None, int] | None = None,
) -> tuple[int, int, int]:
    """The objective of any grouping, smaller is better."""
    by_index = {gpu.index: gpu for gpu in gpus}
    total = 0
    taken = dict(used or {})
    for indexes in chosen:
        cards = [by_index[index] for index in indexes or ()]
        total += price(cards)
        for card in cards:
            taken[card.numa_node] = taken.get(card.numa_node, 0) + 1
    missing = sum(1 for indexes in chosen if indexes is None)
    return missing, total, _balance(taken.values(), packing=_all_pack(guests))


def _all_pack(guests: Sequence[GpuGuest]) -> bool:
    return all(guest.strategy == "pack" for guest in guests)


def _balance(used: Iterable[int], *, packing: bool) -> int:
    squares = sum(count * count for count in used)
    return -squares if packing else squares


class _Groups:
    def __init__(
        self,
        gpus: Sequence[Gpu],
        guests: Sequence[GpuGuest],
        used: Mapping[int | None, int],
        memory: Mapping[int, int],
        budget: int,
    ) -> None:
        self._guests = guests
        self._order = sorted(
            range(len(guests)),
            key=lambda number: (
                guests[number].strategy != "isolate",
                -guests[number].gpus,
                -guests[number].bytes,
                guests[number].strategy,
            ),
        )
        # Cards that hang below the same bridge, or have no bridge and the same node, and that
        # are of one model with as much free memory, are interchangeable.
        sets: dict[tuple[object, ...], list[Gpu]] = {}
        for gpu in gpus:
            bridges = gpu.pci_path[:-1]
            # What only this card hangs below makes it no different from its neighbours.
            while (
                bridges and sum(1 for one in gpus if one.pci_path[: len(bridges)] == bridges) < 2
            ):
                bridges = bridges[:-1]
            key = (bridges, gpu.numa_node, gpu.vendor, gpu.device, gpu.name)
            sets.setdefault((*key, memory.get(gpu.index)), []).append(gpu)
        self._sets = list(sets.values())
        self._memory = [memory.get(cards[0].index) for cards in self._sets]
        self._nodes = [cards[0].numa_node for cards in self._sets]
        self._models = [(c[0].vendor, c[0].device, c[0].name) for c in self._sets]
        self._used = used
        self._packing = _all_pack(guests)
        self._budget = budget
        self._exact = True
        self._known: dict[tuple[int, Free], tuple[int, int, int]] = {}
        self._best: dict[tuple[int, Free], Free | None] = {}
        self._ways: dict[tuple[int, int, str, Free], list[tuple[int, Free]]] = {}

    def run(self) -> Grouping:
        free: Free = tuple(len(cards) for cards in self._sets)
        self._value(0, free)
        left = [list(cards) for cards in self._sets]
        chosen: list[tuple[int, ...] | None] = [None] * len(self._guests)
        position = 0
        while position < len(self._order):
            number = self._order[position]
            taken = self._best.get((position, free))
            if taken is None:
                position = self._next_kind(position)
                continue
            position += 1
            cards = [left[at].pop(0) for at, count in enumerate(taken) for _ in range(count)]
            chosen[number] = tuple(sorted(card.index for card in cards))
            free = self._after(free, taken, self._guests[number])
        return Grouping(tuple(chosen), self._exact)

    def _value(self, position: int, free: Free) -> tuple[int, int, int]:
        """The least cost of the guests from this position on, when so many cards are free."""
        if position == len(self._order):
            return 0, 0, self._balanced(free)
        key = (position, free)
        if key in self._known:
            return self._known[key]
        guest = self._guests[self._order[position]]
        ways = self._ways_for(guest, free)
        self._budget -= 1 + len(ways)
        if self._budget < 0 and ways:
            self._exact = False
            ways = ways[:1]
        best: tuple[int, int, int] | None = None
        self._best[key] = None
        least = self._least(position, free) if len(ways) > 1 else None
        for paid, taken in ways:
            if best is not None and best == least:
                break
            if best is not None and self._budget < 0:
                self._exact = False
                break
            missing, prices, balance = self._value(position + 1, self._after(free, taken, guest))
            if best is None or (missing, prices + paid, balance) < best:
                best = (missing, prices + paid, balance)
                self._best[key] = taken
        if best is None or (self._budget >= 0 and best[0] > 0 and best != least):
            # Without cards for this one there are none for others of its kind either.
            after = self._next_kind(position)
            missing, prices, balance = self._value(after, free)
            skipped = (missing + after - position, prices, balance)
            if best is None or skipped < best:
                best = skipped
                self._best[key] = None
        self._known[key] = best
        return best

    def _least(self, position: int, free: Free) -> tuple[int, int, int]:
        """A cost that nothing from here on can be below: the search ends where it is reached."""
        wanted = sorted(self._guests[number].gpus for number in self._order[position:])
        idle = sum(count for count in free if count > 0)
        seated = 0
        while seated < len(wanted) and sum(wanted[: seated + 1]) <= idle:
            seated += 1
        rooms: dict[int | None, int] = {}
        taken = dict(self._used)
        for at, cards in enumerate(self._sets):
            node = self._nodes[at]
            rest = free[at] if free[at] >= 0 else -1 - free[at]
            rooms[node] = rooms.get(node, 0) + max(0, free[at])
            taken[node] = taken.get(node, 0) + len(cards) - rest
        if self._packing:
            more = min(idle, sum(wanted[len(wanted) - seated :]))
            for node in sorted(rooms, key=lambda node: -taken[node] - rooms[node]):
                # More than can be, so that no order of filling does better.
                taken[node] += min(more, rooms[node])
        else:
            for _ in range(sum(wanted[:seated])):
                node = min((n for n in rooms if rooms[n]), key=lambda n: taken[n])
                rooms[node] -= 1
                taken[node] += 1
        balance = _balance(taken.values(), packing=self._packing)
        return len(wanted) - seated, self._least_prices(position, free, seated), balance

    def _least_prices(self, position: int, free: Free, seated: int) -> int:
        """Groups only get dearer while cards are taken."""
        rest = [self._guests[number] for number in self._order[position:]]
        cheapest = {}
        for guest in dict.fromkeys(rest):
            ways = self._ways_for(guest, free)
            cheapest[guest] = ways[0][0] if ways else 0
        if seated == len(rest):
            return sum(cheapest[guest] for guest in rest)
        return seated * min(cheapest.values())

    def _next_kind(self, position: int) -> int:
        guest = self._guests[self._order[position]]
        while position < len(self._order) and self._guests[self._order[position]] == guest:
            position += 1
        return position

    def _ways_for(self, guest: GpuGuest, free: Free) -> list[tuple[int, Free]]:
        """Lawful groups as counts of each set with their price: the best one first."""
        key = (guest.gpus, guest.bytes, guest.strategy, free)
        if key in self._ways:
            return self._ways[key]
        fits = [
            at
            for at, memory in enumerate(self._memory)
            if free[at] > 0
            and (memory is None or memory >= guest.bytes)
            and (guest.strategy != "isolate" or self._untouched(self._nodes[at], free))
        ]
        ways: dict[Free, int] = {}
        for sets in self._sets_for(guest.gpus, fits):
            for counts in _split(guest.gpus, [free[at] for at in sets]):
                taken = [0] * len(free)
                for at, count in zip(sets, counts, strict=True):
                    taken[at] = count
                cards = [card for at in sets for card in self._sets[at][: taken[at]]]
                ways[tuple(taken)] = price(cards)
            if len(ways) > _MOST_WAYS:
                self._exact = False
                break
        ordered = sorted(
            ((paid, taken) for taken, paid in ways.items()),
            key=lambda way: (
                way[0],
                sum(free[at] - count for at, count in enumerate(way[1]) if count),
                tuple(-count for count in way[1]),
            ),
        )
        self._ways[key] = ordered
        return ordered

    def _sets_for(self, gpus: int, fits: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Sets of one model to take cards from; the near ones alone where there are very many."""
        models: dict[tuple[object, ...], list[int]] = {self._models[at]: [] for at in fits}
        for at in fits:
            models[self._models[at]].append(at)
        for alike in models.values():
            most = min(gpus, len(alike))
            if sum(comb(len(alike), width) for width in range(1, most + 1)) <= _MOST_WAYS:
                for width in range(1, most + 1):
                    yield from combinations(alike, width)
                continue
            self._exact = False
            for near in range(len(alike)):
                order = sorted(
                    alike,
                    key=lambda at: (
                        price([self._sets[alike[near]][0], self._sets[at][0]]),
                        at != alike[near],
                        at,
                    ),
                )
                for width in range(1, most + 1):
                    yield tuple(order[:width])

    def _after(self, free: Free, taken: Free, guest: GpuGuest) -> Free:
        rest = [have - count for have, count in zip(free, taken, strict=True)]
        if guest.strategy == "isolate":
            closed = {self._nodes[at] for at, count in enumerate(taken) if count}
            # What stays idle beside an isolated instance is counted below zero.
            rest = [
                -1 - have if self._nodes[at] in closed and have >= 0 else have
                for at, have in enumerate(rest)
            ]
        return tuple(rest)

    def _untouched(self, node: int | None, free: Free) -> bool:
        return not self._used.get(node) and all(
            free[at] == len(cards)
            for at, cards in enumerate(self._sets)
            if self._nodes[at] == node
        )

    def _balanced(self, free: Free) -> int:
        taken = dict(self._used)
        for at, cards in enumerate(self._sets):
            node = self._nodes[at]
            idle = free[at] if free[at] >= 0 else -1 - free[at]
            taken[node] = taken.get(node, 0) + len(cards) - idle
        return _balance(taken.values(), packing=self._packing)


def _split(total: int, most: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every way to write `total` as a sum with 1 to `most[i]` from each set."""
    if len(most) == 1:
        if 1 <= total <= most[0]:
            yield (total,)
        return
    for count in range(min(most[0], total - len(most) + 1), 0, -1):
        for rest in _split(total - count, most[1:]):
            yield (count, *rest)
