"""Which NUMA node each `auto` instance goes to: the best seating under one written objective.

The objective, in this order:

1. As many instances as possible have a place.
2. The smallest even share is as large as can be, then the second smallest, and so on.
3. Few instances are on nodes without memory of their own.
4. `pack`: few nodes that were empty are begun, then few nodes are used at all.
5. `spread` and `isolate`: the sum of (cores in use)^2 / cores over the nodes is small, so the
   instances share memory bandwidth as little as possible. Nodes with `pack` alone count the other
   way: they shall be full, so that others stay empty.

Ties go to the lowest nodes. Instances and nodes that are alike are interchangeable, so the search
runs over how many of each kind a node gets; that is exact. Past `BUDGET` steps (several kinds of
instances on a very large machine) it seats one after the other and then betters that by moves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

BUDGET = 36_000
"""Steps of the exact search, at most some 25 ms."""
_COSTING = 5
"""Steps that it takes to work out the cost of a room."""
_ROUNDS = 2
"""How often all moves are tried."""
_SCALE = 1 << 10
"""Keeps the crowding of small nodes apart after division to whole numbers."""

Counts = tuple[int, ...]
"""How many guests of each kind."""


@dataclass(frozen=True, slots=True)
class Room:
    """A NUMA node as the seating sees it."""

    cores: int
    """Free cores."""
    whole: int
    """All cores that we may use, those of other instances included."""
    bytes: int | None = None
    """Free memory; None where not known."""
    fed: bool = True
    """Whether it has memory of its own."""


@dataclass(frozen=True, slots=True)
class Guest:
    """An instance as the seating sees it."""

    cores: int | None
    """None: an even share of what is left on its node."""
    bytes: int = 0
    strategy: str = "spread"


@dataclass(frozen=True, slots=True)
class Seating:
    """For each guest the position of its room, None where there was no place."""

    rooms: tuple[int | None, ...]
    exact: bool
    """Whether nothing can be better; False when the search was cut short."""


def seat_all(rooms: Sequence[Room], guests: Sequence[Guest], *, budget: int = BUDGET) -> Seating:
    """The best seating; deterministic."""
    if not guests:
        return Seating((), exact=True)
    house = _House(rooms, guests)
    taken = house.search(budget)
    exact = taken is not None
    if taken is None:
        taken = house.greedy()
    waiting = [
        [number for number, guest in enumerate(guests) if guest == kind] for kind in house.kinds
    ]
    seats: list[int | None] = [None] * len(guests)
    for room, counts in enumerate(taken):
        for kind, count in enumerate(counts):
            for _ in range(count):
                seats[waiting[kind].pop(0)] = room
    return Seating(tuple(seats), exact)


def cost(
    rooms: Sequence[Room], guests: Sequence[Guest], seats: Sequence[int | None]
) -> tuple[int, int] | None:
    """The objective of any seating, smaller is better; None where it breaks a rule."""
    house = _House(rooms, guests)
    total = 0
    for number in range(len(rooms)):
        here = [guest for guest, seat in zip(guests, seats, strict=True) if seat == number]
        one = house.cost_of(number, tuple(here.count(kind) for kind in house.kinds))
        if one is None:
            return None
        total += one
    return sum(1 for seat in seats if seat is None), total


class _House:
    def __init__(self, rooms: Sequence[Room], guests: Sequence[Guest]) -> None:
        self._rooms = rooms
        self.kinds = tuple(dict.fromkeys(guests))
        self._wanted = tuple(guests.count(kind) for kind in self.kinds)
        self._many = len(guests) + len(rooms) + 1
        self._largest = max((room.cores for room in rooms), default=0)
        crowd = max((room.whole for room in rooms), default=0) * _SCALE
        self._middle = crowd
        self._crowds = (2 * crowd + 1) * (len(rooms) + 1)
        kinds = list(dict.fromkeys(rooms))
        self._alike = [kinds.index(room) for room in rooms]
        """For each room a number that it shares with those like it."""
        self._known: dict[tuple[int, Counts], int | None] = {}

    def search(self, budget: int) -> list[Counts] | None:
        """Counts for each room, by dynamic programming over the rooms; None past the budget.

        The objective is a sum over rooms, so of two ways to seat the same guests in the first
        rooms only the cheaper can be part of the best seating.
        """
        choices: dict[int, list[tuple[Counts, int]]] = {}
        for number, alike in enumerate(self._alike):
            if alike not in choices:
                choices[alike] = []
                for counts in self._choices(number):
                    one = self.cost_of(number, counts)
                    budget -= _COSTING
                    if one is not None:
                        choices[alike].append((counts, one))
                    if budget < 0:
                        return None
        layers: list[dict[Counts, tuple[int, Counts]]] = []
        states: dict[Counts, int] = {self._wanted: 0}
        for alike in self._alike:
            budget -= len(states) * len(choices[alike])
            if budget < 0:
                return None
            layer: dict[Counts, tuple[int, Counts]] = {}
            for left, so_far in states.items():
                for counts, one in choices[alike]:
                    after = tuple([a - b for a, b in zip(left, counts, strict=True)])
                    if min(after) < 0:
                        continue
                    known = layer.get(after)
                    if known is None or so_far + one < known[0]:
                        layer[after] = (so_far + one, counts)
            layers.append(layer)
            states = {left: best for left, (best, _) in layer.items()}
        left = min(states, key=lambda left: (sum(left), states[left], left))
        taken: list[Counts] = []
        for layer in reversed(layers):
            counts = layer[left][1]
            taken.append(counts)
            left = tuple([a + b for a, b in zip(left, counts, strict=True)])
        return taken[::-1]

    def greedy(self) -> list[Counts]:
        """One guest after the other where it costs least, then single moves while they help."""
        taken = [tuple([0] * len(self.kinds)) for _ in self._rooms]
        order = sorted(
            range(len(self.kinds)),
            key=lambda kind: (
                self.kinds[kind].strategy != "isolate",
                -(self.kinds[kind].cores or 0),
                -self.kinds[kind].bytes,
            ),
        )
        for kind in order:
            for _ in range(self._wanted[kind]):
                best = self._cheapest(taken, kind)
                if best is None:
                    break
                taken[best] = _with(taken[best], kind, 1)
        for _ in range(_ROUNDS):
            if not (self._seat_the_rest(taken) | self._better_by_moves(taken)):
                break
        return taken

    def _better_by_moves(self, taken: list[Counts]) -> bool:
        """Each guest to where it costs least, or in exchange for another."""
        better = False
        pairs = [(a, b) for a in range(len(taken)) for b in range(len(taken)) if a != b]
        # A guest for none, or one for one of another kind.
        kinds = range(len(self.kinds))
        swaps = [(kind, other) for kind in kinds for other in (None, *kinds) if kind != other]
        for origin, target in pairs:
            for kind, other in swaps:
                here, there = taken[origin], taken[target]
                if not here[kind] or (other is not None and not there[other]):
                    continue
                before = self._sum(taken, origin, target)
                here, there = _with(here, kind, -1), _with(there, kind, 1)
                if other is not None:
                    here, there = _with(here, other, 1), _with(there, other, -1)
                one, two = self.cost_of(origin, here), self.cost_of(target, there)
                if one is not None and two is not None and one + two < before:
                    taken[origin], taken[target] = here, there
                    better = True
        return better

    def _seat_the_rest(self, taken: list[Counts]) -> bool:
        """Make room for a guest without one by moving one other."""
        better = False
        for kind in range(len(self.kinds)):
            while sum(counts[kind] for counts in taken) < self._wanted[kind]:
                if not self._squeeze_in(taken, kind):
                    break
                better = True
        return better

    def _squeeze_in(self, taken: list[Counts], kind: int) -> bool:
        for room in range(len(taken)):
            here = taken[room]
            if self.cost_of(room, _with(here, kind, 1)) is not None:
                taken[room] = _with(here, kind, 1)
                return True
            for other in range(len(self.kinds)):
                exchanged = _with(_with(here, kind, 1), other, -1)
                if not here[other] or self.cost_of(room, exchanged) is None:
                    continue
                taken[room] = exchanged
                if (place := self._cheapest(taken, other)) is not None:
                    taken[place] = _with(taken[place], other, 1)
                    return True
                taken[room] = here
        return False

    def _sum(self, taken: Sequence[Counts], *rooms: int) -> int:
        return sum(self.cost_of(room, taken[room]) or 0 for room in rooms)

    def _cheapest(self, taken: Sequence[Counts], kind: int) -> int | None:
        best: tuple[int, int] | None = None
        for room, counts in enumerate(taken):
            more = self.cost_of(room, _with(counts, kind, 1))
            if more is None:
                continue
            price = more - (self.cost_of(room, counts) or 0)
            if best is None or price < best[0]:
                best = (price, room)
        return None if best is None else best[1]

    def _choices(self, number: int) -> Iterator[Counts]:
        """Counts that the cores alone allow, the most first: ties go to the lowest rooms."""
        room = self._rooms[number]
        most = [
            min(wanted, room.cores // (kind.cores or 1))
            for kind, wanted in zip(self.kinds, self._wanted, strict=True)
        ]
        return product(*(range(top, -1, -1) for top in most))

    def cost_of(self, number: int, counts: Counts) -> int | None:
        """What this room adds to the objective, as one number; None where it is too full."""
        key = (self._alike[number], counts)
        if key not in self._known:
            self._known[key] = self._cost_of(self._rooms[number], counts)
        return self._known[key]

    def _cost_of(self, room: Room, counts: Counts) -> int | None:
        guests = sum(counts)
        fixed = even = needed = packed = isolated = 0
        for kind, count in zip(self.kinds, counts, strict=True):
            if kind.cores is None:
                even += count
            else:
                fixed += kind.cores * count
            needed += kind.bytes * count
            packed += count if kind.strategy == "pack" else 0
            isolated += count if kind.strategy == "isolate" else 0
        rest = room.cores - fixed
        if rest < even or (room.bytes is not None and needed > room.bytes):
            return None
        others = room.whole - room.cores
        if isolated and (guests > 1 or others):
            return None
        shares = 0
        if even:
            each, larger = divmod(rest, even)
            # As digits of one number, the smallest share first: comparing two such sums of
            # equally many shares compares the shares in ascending order.
            base = self._many
            shares = (even - larger) * base ** (self._largest - each)
            if larger:
                shares += larger * base ** (self._largest - each - 1)
        used = others + fixed + (rest if even else 0)
        crowd = used * used * _SCALE // max(1, room.whole) if guests else 0
        if packed == guests:
            crowd = -crowd
        many = self._many
        total = shares * many + (0 if room.fed else guests)
        total = total * many + (1 if packed and not others else 0)
        total = total * many + (1 if packed else 0)
        return total * self._crowds + crowd + self._middle


def _with(counts: Counts, kind: int, more: int) -> Counts:
    return (*counts[:kind], counts[kind] + more, *counts[kind + 1 :])
