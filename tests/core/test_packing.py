"""Seating instances on NUMA nodes: as good as trying everything, and quick where that is not."""

from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.placing.packing import Guest, Room, cost, seat_all

rooms = st.builds(
    lambda cores, others, memory, fed: Room(cores, cores + others, memory, fed=fed),
    st.integers(0, 6),
    st.sampled_from([0, 0, 2]),
    st.sampled_from([None, None, 10, 20]),
    st.booleans(),
)
guests = st.builds(
    Guest,
    st.sampled_from([None, None, 1, 2, 3]),
    st.sampled_from([0, 0, 5, 8]),
    st.sampled_from(["spread", "spread", "pack", "isolate"]),
)
houses = st.tuples(
    st.lists(rooms, min_size=1, max_size=3), st.lists(guests, min_size=1, max_size=4)
)


def best_of_all(rooms: Sequence[Room], guests: Sequence[Guest]) -> tuple[int, int]:
    """Exhaustive search: every guest in every room or in none."""
    every = product([None, *range(len(rooms))], repeat=len(guests))
    return min(price for seats in every if (price := cost(rooms, guests, seats)) is not None)


@settings(max_examples=400)
@given(houses)
def test_as_good_as_trying_everything(house: tuple[list[Room], list[Guest]]) -> None:
    rooms, guests = house
    seating = seat_all(rooms, guests)
    assert seating.exact
    assert cost(rooms, guests, seating.rooms) == best_of_all(rooms, guests)
    assert seat_all(rooms, guests) == seating


@settings(max_examples=200)
@given(houses)
def test_a_search_cut_short_keeps_the_rules(house: tuple[list[Room], list[Guest]]) -> None:
    rooms, guests = house
    seating = seat_all(rooms, guests, budget=0)
    assert not seating.exact
    price = cost(rooms, guests, seating.rooms)
    assert price is not None
    assert price >= best_of_all(rooms, guests)


EVEN = Guest(None)


@pytest.mark.parametrize(
    ("rooms", "guests", "seats"),
    [
        # even shares: the smallest as large as can be
        ([Room(8, 8), Room(8, 8)], [EVEN, EVEN], (0, 1)),
        ([Room(8, 8), Room(1, 1)], [EVEN, EVEN], (0, 0)),
        ([Room(43, 43), Room(42, 42), Room(42, 42)], [EVEN] * 4, (0, 0, 1, 2)),
        # spread: each on its own node; pack: all on one, so that the other stays empty
        ([Room(8, 8), Room(8, 8)], [Guest(2), Guest(2)], (0, 1)),
        ([Room(8, 8), Room(8, 8)], [Guest(2, strategy="pack")] * 2, (0, 0)),
        # pack goes where somebody is already
        ([Room(8, 8), Room(6, 8)], [Guest(2, strategy="pack")], (1,)),
        # isolate: a node of its own, whatever the others lose
        ([Room(8, 8), Room(8, 8)], [EVEN, EVEN, Guest(2, strategy="isolate")], (0, 0, 1)),
        ([Room(8, 9), Room(8, 9)], [Guest(2, strategy="isolate")], (None,)),
        # memory: two that do not fit together are parted, though pack would have them together
        (
            [Room(8, 8, 10), Room(8, 8, 10)],
            [Guest(2, 6, "pack"), Guest(2, 6, "pack")],
            (0, 1),
        ),
        ([Room(8, 8, 10)], [Guest(2, 6), Guest(2, 6)], (0, None)),
        # a node without memory of its own comes last
        ([Room(8, 8, fed=False), Room(8, 8)], [Guest(2)], (1,)),
        # all have a place, though taking them in the file's order would leave one without
        ([Room(6, 6), Room(4, 4)], [Guest(3), Guest(4), Guest(3)], (0, 1, 0)),
        ([], [EVEN], (None,)),
        ([Room(4, 4)], [], ()),
    ],
)
def test_who_sits_where(
    rooms: list[Room], guests: list[Guest], seats: tuple[int | None, ...]
) -> None:
    seating = seat_all(rooms, guests)
    assert seating.rooms == seats
    assert seating.exact


@pytest.mark.parametrize("guests", [[EVEN] * 64, [Guest(16)] * 64, [Guest(4)] * 64])
def test_a_large_machine_is_still_searched_to_the_end(guests: list[Guest]) -> None:
    seating = seat_all([Room(128, 128, 1 << 40)] * 8, guests)
    assert seating.exact
    assert sorted(seat for seat in seating.rooms if seat is not None) == [
        room for room in range(8) for _ in range(8)
    ]


def test_very_many_kinds_at_once_are_all_seated_and_told_of() -> None:
    guests = [Guest(2 * (number % 8 + 1), number) for number in range(64)]
    seating = seat_all([Room(128, 128, 1 << 40)] * 8, guests)
    assert not seating.exact
    assert None not in seating.rooms
