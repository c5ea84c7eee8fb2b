"""How long a plan takes, and how good `auto` is, against machines and layouts of growing size.

    PYTHONPATH=. python benchmarks/planner.py [--rounds N]

Quality is compared with exhaustive search on small machines, in the same run, and on machines
too large for that with a search that is given a thousand times as many steps.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product

from engine.core.layout import Instance, Layout
from engine.core.placement import place
from engine.core.placing.engine_traits import EngineTraits
from engine.core.placing.gpu_groups import GpuGuest, group_all
from engine.core.placing.packing import Guest, Room, cost, seat_all
from engine.core.topology import Gpu, Machine
from tests.machines_by_hand import build

STRATEGIES = ("spread", "spread", "pack", "isolate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="of each plan (20)")
    rounds = parser.parse_args().rounds
    print("plan: milliseconds for the whole of place(), median and largest of", rounds)
    print(f"{'machine':34} {'layout':38} {'median':>8} {'largest':>8}  unplaced")
    for machine_name, machine in machines():
        for layout_name, wishes in layouts(machine):
            layout = Layout(name="x", instances=tuple(wishes))
            traits = {"gpu": EngineTraits("gpu")}
            spent = timed(partial(place, machine, layout, traits=traits), rounds)
            refused = len(place(machine, layout, traits=traits).refusals)
            middle, worst = statistics.median(spent), max(spent)
            print(f"{machine_name:34} {layout_name:38} {middle:8.1f} {worst:8.1f}  {refused}")
    print()
    quality_of_small()
    quality_of_large()


def timed(act: Callable[[], object], rounds: int) -> list[float]:
    """Milliseconds of each round."""
    spent = []
    for _ in range(rounds):
        begun = time.perf_counter()
        act()
        spent.append((time.perf_counter() - begun) * 1000)
    return spent


def machines() -> list[tuple[str, Machine]]:
    return [
        ("1 package x 16 cores", build([16], smt=2)),
        ("2 packages x 64 cores, 4 GPUs", with_cards(build([64] * 2, smt=2), 4)),
        ("4 packages x 3 nodes x 43 cores", build([43, 43, 42] * 4, nodes_per_package=3, smt=2)),
        ("8 packages x 128 cores, 16 GPUs", with_cards(build([128] * 8, smt=2), 16)),
        (
            "8 packages x 4 nodes x 32 cores",
            with_cards(build([32] * 32, nodes_per_package=4, smt=2), 16),
        ),
    ]


def with_cards(machine: Machine, count: int) -> Machine:
    """The same machine with cards on its nodes, two below each switch."""
    nodes = len(machine.numa_nodes)
    cards = build([1] * nodes, gpus_on=[i * nodes // count for i in range(count)]).gpus
    wired = tuple(
        replace(card, pci_path=(f"root{i // 4}", f"switch{i // 2}", card.pci))
        for i, card in enumerate(cards)
    )
    return replace(machine, gpus=wired)


def layouts(machine: Machine) -> list[tuple[str, list[Instance]]]:
    cores = len(machine.cores)
    many = min(64, cores)
    sizes = [max(1, cores // many // 2 * (1 + number % 4) // 2) for number in range(many)]
    found = [
        (f"{many} even shares", [Instance(name="a", count=many)]),
        (
            f"{many} of {max(1, cores // many)} cores",
            [Instance(name="a", count=many, cores=max(1, cores // many))],
        ),
        (
            f"{many} of 4 sizes",
            [Instance(name=f"a{i}", cores=size) for i, size in enumerate(sizes)],
        ),
        (
            f"{many} of 4 sizes and 3 strategies",
            [
                Instance(name=f"a{i}", cores=size, strategy=STRATEGIES[i % 3])
                for i, size in enumerate(sizes)
            ],
        ),
    ]
    if machine.gpus:
        cards = len(machine.gpus)
        found += [
            (
                f"{cards // 2} of 2 GPUs and {many - cards // 2} on cores",
                [
                    Instance(name="g", engine="gpu", gpus=2, count=cards // 2),
                    Instance(name="a", count=many - cards // 2),
                ],
            ),
            ("64 that want a GPU each", [Instance(name="g", engine="gpu", gpus=1, count=64)]),
        ]
    return found


def quality_of_small() -> None:
    """Against every possible seating of up to four instances on up to three nodes."""
    drawn = random.Random(1)
    tried = as_good = cut_as_good = all_seated = 0
    for _ in range(3000):
        rooms, guests = draw(drawn, most_rooms=3, most_guests=4, most_cores=6)
        best = min(
            price
            for seats in product([None, *range(len(rooms))], repeat=len(guests))
            if (price := cost(rooms, guests, seats)) is not None
        )
        tried += 1
        as_good += cost(rooms, guests, seat_all(rooms, guests).rooms) == best
        cut = cost(rooms, guests, seat_all(rooms, guests, budget=0).rooms)
        cut_as_good += cut == best
        all_seated += cut is not None and cut[0] == best[0]
    print(f"small machines, against exhaustive search, {tried} cases:")
    print(f"  as good: {as_good / tried:.1%}")
    print(
        f"  cut short at once: as good {cut_as_good / tried:.1%}, "
        f"as many instances seated {all_seated / tried:.1%}"
    )


def quality_of_large() -> None:
    """The usual budget against a thousandfold one, where that reaches the end."""
    drawn = random.Random(2)
    tried = as_good = seated = 0
    for _ in range(40):
        rooms, guests = draw(drawn, most_rooms=8, most_guests=24, most_cores=32, kinds=4)
        long = seat_all(rooms, guests, budget=30_000_000)
        if not long.exact:
            continue
        best = cost(rooms, guests, long.rooms)
        usual = cost(rooms, guests, seat_all(rooms, guests).rooms)
        tried += 1
        as_good += usual == best
        seated += best is not None and usual is not None and usual[0] == best[0]
    print(f"up to 8 nodes and 24 instances of 4 kinds, against a thousandfold budget, {tried}:")
    print(f"  as good: {as_good / tried:.1%}, as many instances seated {seated / tried:.1%}")
    gpus = with_cards(build([8] * 4), 16).gpus
    print("groups of 16 GPUs searched to the end:", groups_searched(gpus))


def groups_searched(gpus: Sequence[Gpu]) -> str:
    """How often the search for groups that there are enough cards for reached its end."""
    drawn = random.Random(3)
    exact = 0
    for _ in range(50):
        left, sizes = len(gpus), [0]
        while sum(sizes) < left and len(sizes) < drawn.randint(1, 16):
            sizes.append(
                drawn.choice([size for size in (1, 1, 2, 4, 8) if sum(sizes) + size <= left])
            )
        exact += group_all(gpus, [GpuGuest(size) for size in sizes[1:]]).exact
    return f"{exact} of 50"


def draw(
    drawn: random.Random, *, most_rooms: int, most_guests: int, most_cores: int, kinds: int = 99
) -> tuple[list[Room], list[Guest]]:
    rooms = []
    for _ in range(drawn.randint(1, most_rooms)):
        cores = drawn.randint(0, most_cores)
        memory = drawn.choice([None, 10, 20])
        rooms.append(
            Room(cores, cores + drawn.choice([0, 0, 2]), memory, fed=drawn.random() < 0.8)
        )
    some = [
        Guest(
            drawn.choice([None, None, 1, 2, 3]),
            drawn.choice([0, 0, 5, 8]),
            drawn.choice(STRATEGIES),
        )
        for _ in range(min(kinds, most_guests))
    ]
    return rooms, [drawn.choice(some) for _ in range(drawn.randint(1, most_guests))]


if __name__ == "__main__":
    main()
