"""Groups of GPUs: as good as trying everything, near cards first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.placing.gpu_groups import GpuGuest, cost, group_all, price
from engine.core.topology import Gpu
from tests.machines_by_hand import gpu

PATHS = (("root0",), ("root1",), ("root1", "switch1"), ("root2", "switch2", "port"), ())


@st.composite
def boxes(draw: st.DrawFn) -> list[Gpu]:
    cards = []
    for index in range(draw(st.integers(1, 5))):
        card = gpu(index, draw(st.sampled_from([0, 0, 1, None])))
        path = (*draw(st.sampled_from(PATHS)), card.pci)
        model = draw(st.sampled_from(["56a0", "56a0", "e20b"]))
        cards.append(replace(card, pci_path=path, device=model))
    return cards


guests = st.builds(
    GpuGuest,
    st.sampled_from([1, 1, 2, 3]),
    st.sampled_from([0, 0, 9]),
    st.sampled_from(["spread", "spread", "pack", "isolate"]),
)


def every_grouping(
    cards: Sequence[Gpu],
    guests: Sequence[GpuGuest],
    used: Mapping[int | None, int],
    memory: Mapping[int, int],
) -> Iterator[tuple[tuple[int, ...] | None, ...]]:
    """Exhaustive search: any cards for each guest, as long as the rules are kept."""
    node = {card.index: card.numa_node for card in cards}
    options: list[list[tuple[int, ...] | None]] = []
    for guest in guests:
        lawful = [
            tuple(card.index for card in group)
            for group in combinations(cards, guest.gpus)
            if len({card.device for card in group}) == 1
            and all(memory.get(card.index, guest.bytes) >= guest.bytes for card in group)
        ]
        options.append([None, *lawful])
    for chosen in product(*options):
        taken = [index for group in chosen for index in group or ()]
        if len(taken) > len(set(taken)):
            continue
        for guest, group in zip(guests, chosen, strict=True):
            own = {node[index] for index in group or ()}
            others = {node[index] for index in set(taken) - set(group or ())}
            if guest.strategy == "isolate" and (own & others or any(map(used.get, own))):
                break
        else:
            yield chosen


@settings(max_examples=400)
@given(
    boxes(),
    st.lists(guests, min_size=1, max_size=3),
    st.dictionaries(st.sampled_from([0, 1, None]), st.integers(0, 2)),
    st.dictionaries(st.integers(0, 4), st.sampled_from([8, 16])),
)
def test_as_good_as_trying_everything(
    cards: list[Gpu],
    guests: list[GpuGuest],
    used: dict[int | None, int],
    memory: dict[int, int],
) -> None:
    answer = group_all(cards, guests, used=used, memory=memory)
    assert answer.exact
    every = list(every_grouping(cards, guests, used, memory))
    assert answer.gpus in every
    best = min(cost(cards, guests, chosen, used) for chosen in every)
    assert cost(cards, guests, answer.gpus, used) == best
    cut = group_all(cards, guests, used=used, memory=memory, budget=0)
    assert cut.gpus in every


def big_box() -> list[Gpu]:
    """Sixteen cards: two a switch, two switches a root port, two root ports a node."""
    return [
        replace(gpu(i, i // 8), pci_path=(f"root{i // 4}", f"switch{i // 2}", f"card{i}"))
        for i in range(16)
    ]


def test_the_price_of_a_group_is_how_far_its_cards_are() -> None:
    cards = big_box()
    assert [price([cards[0], cards[other]]) for other in (1, 2, 4, 8)] == [0, 1, 2, 3]
    assert price(cards[:1]) == 0
    untold = [replace(card, numa_node=None, pci_path=()) for card in cards[:2]]
    assert price(untold) == 3


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        ([2, 2], [(0, 1), (8, 9)]),  # near each other, and spread over the nodes
        ([4], [(0, 1, 2, 3)]),
        ([1, 1], [(0,), (8,)]),
        ([2, 1], [(0, 1), (8,)]),
        ([16], [tuple(range(16))]),
        ([17], [None]),
    ],
)
def test_near_cards_first_then_spread(
    wanted: list[int], taken: list[tuple[int, ...] | None]
) -> None:
    answer = group_all(big_box(), [GpuGuest(gpus) for gpus in wanted])
    assert list(answer.gpus) == taken


def test_pack_stays_on_one_node_and_isolate_alone() -> None:
    packed = group_all(big_box(), [GpuGuest(2, strategy="pack")] * 4)
    assert packed.gpus == ((0, 1), (2, 3), (4, 5), (6, 7))
    alone = group_all(big_box(), [GpuGuest(1), GpuGuest(1), GpuGuest(2, strategy="isolate")])
    assert alone.gpus == ((8,), (9,), (0, 1))
    assert group_all(big_box(), [GpuGuest(1, strategy="isolate")] * 3).gpus[2] is None


def test_one_group_is_of_one_model() -> None:
    cards = [replace(card, device=f"e20{card.index % 2}") for card in big_box()]
    answer = group_all(cards, [GpuGuest(2)])
    assert answer.gpus == ((0, 2),)


@pytest.mark.parametrize(
    "guests",
    [
        [GpuGuest(1)] * 64,
        [GpuGuest(2)] * 8,
        [GpuGuest(4)] * 4,
        [GpuGuest(2)] * 4 + [GpuGuest(1)] * 8,
    ],
)
def test_sixteen_cards_are_searched_to_the_end(guests: list[GpuGuest]) -> None:
    answer = group_all(big_box(), guests)
    assert answer.exact
    assert sum(len(group or ()) for group in answer.gpus) == 16
