"""The slot grammar: everything it can say, and errors that point at the character."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import SlotError
from engine.core.slot import Slot, cores_of
from engine.core.topology import Core, Machine
from tests.machines_by_hand import MACHINES, server

numbers = st.frozensets(st.integers(0, 300), min_size=1, max_size=6)


def listed(values: frozenset[int]) -> str:
    return ",".join(map(str, sorted(values)))


places = st.one_of(
    st.just("machine"),
    st.integers(0, 9).map(lambda number: f"package:{number}"),
    numbers.map(lambda some: f"numa:{listed(some)}"),
)
slots = st.one_of(
    places,
    st.tuples(places, numbers).map(lambda two: f"{two[0]}/core:{listed(two[1])}"),
    st.tuples(st.sampled_from(["core", "pu", "gpu"]), numbers).map(
        lambda two: f"{two[0]}:{listed(two[1])}"
    ),
    st.sampled_from(["auto", "each numa", "each package", "each gpu"]),
)


@given(slots)
def test_the_whole_grammar_goes_there_and_back(text: str) -> None:
    slot = Slot.parse(text)
    assert Slot.parse(str(slot)) == slot
    assert str(Slot.parse(str(slot))) == str(slot)


@pytest.mark.parametrize(
    "text",
    [
        *("machine", "machine/core:0-3", "package:1", "package:0/core:2", "numa:0", "numa:0-1"),
        *("numa:0/core:0-15", "numa:0-1/core:0-3,8", "core:0-7", "pu:0,64", "gpu:0", "gpu:0-3"),
        *("auto", "each numa", "each package", "each gpu"),
    ],
)
def test_the_normal_form_is_unchanged(text: str) -> None:
    assert str(Slot.parse(text)) == text


def test_lists_are_folded() -> None:
    assert str(Slot.parse("numa:0,1,2,5/core:3,2,1")) == "numa:0-2,5/core:1-3"
    assert str(Slot.parse("  each   numa ")) == "each numa"


@pytest.mark.parametrize(
    ("text", "character", "hint"),
    [
        ("", 1, None),
        ("   ", 1, None),
        ("nuam:0", 1, "numa"),
        ("Numa:0", 1, "numa"),
        ("socket:0", 1, None),
        ("packages:0", 1, "package"),
        ("numa", 5, None),
        ("numa:", 6, None),
        ("numa:x", 6, None),
        ("numa:0, 1", 6, None),
        ("numa:1-0", 6, None),
        ("numa:0/cores:1", 8, "core"),
        ("numa:0/", 8, None),
        ("numa:0/core:", 13, None),
        ("numa:0/core:a", 13, None),
        ("numa:0/core:1/core:2", 13, None),
        ("machine:0", 8, None),
        ("auto:1", 5, None),
        ("package:0,1", 9, None),
        ("pu:0/core:0", 5, None),
        ("gpu:0/core:0", 6, None),
        ("auto/core:0", 5, None),
        ("each", 5, None),
        ("each nuam", 6, "numa"),
        ("each:numa", 6, "numa"),
        ("each numa numa", 6, "numa"),
        ("each packages", 6, "package"),
        ("each numa/core:0", 6, "numa"),
        ("pu:0-999999999999", 4, None),
        ("numa:-1", 6, None),
        ("numa:٣", 6, None),
    ],
)
def test_a_mistake_is_pointed_at(text: str, character: int, hint: str | None) -> None:
    with pytest.raises(SlotError) as caught:
        Slot.parse(text)
    assert f"at character {character}" in caught.value.what
    assert "A slot is one of: machine" in caught.value.do
    assert (
        (f"Did you mean {hint!r}?" in caught.value.do) if hint else "mean" not in caught.value.do
    )
    assert caught.value.exit_code == 2


@given(
    st.one_of(
        st.text(max_size=40),
        st.lists(
            st.sampled_from(
                [
                    *("machine", "numa", "each", "package", "core", "pu", "gpu", ":", "/", "0"),
                    *("-", ",", " ", "1", "auto", "\n", "²", "99999999999", "\0", "each numa"),
                ]
            ),
            max_size=8,
        ).map("".join),
    )
)
def test_only_slot_errors_escape(text: str) -> None:
    found = _parsed(text)
    if isinstance(found, SlotError):
        assert len(found.what) < 200
    else:
        assert Slot.parse(str(found)) == found


def _parsed(text: str) -> Slot | SlotError:
    try:
        return Slot.parse(text)
    except SlotError as error:
        return error


@given(slots, st.sampled_from(sorted(MACHINES)))
def test_on_any_machine_a_slot_names_its_cores_or_is_refused(text: str, name: str) -> None:
    machine = MACHINES[name]
    found = _cores(Slot.parse(text), machine)
    if isinstance(found, SlotError):
        assert "does not exist here" in found.what
        assert "slotdeck topo" in found.do
    else:
        assert set(found) <= set(machine.cores)


def _cores(slot: Slot, machine: Machine) -> tuple[Core, ...] | SlotError:
    try:
        return cores_of(slot, machine)
    except SlotError as error:
        return error


def test_cores_are_counted_within_their_place() -> None:
    machine = server()
    inside = cores_of(Slot.parse("numa:1/core:0-1"), machine)
    assert [str(core.pus) for core in inside] == ["8,40", "9,41"]
    inside = cores_of(Slot.parse("package:1/core:0"), machine)
    assert [str(core.pus) for core in inside] == ["16,48"]
    assert [str(core.pus) for core in cores_of(Slot.parse("pu:41"), machine)] == ["9,41"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("numa:4", "this machine has NUMA nodes 0-3, not NUMA node 4"),
        ("package:2", "this machine has packages 0-1, not package 2"),
        ("pu:64", "this machine has online PUs 0-63, not PU 64"),
        ("gpu:0", "this machine has no GPUs, not GPU 0"),
        ("numa:0/core:6-9", "numa:0 has cores 0-7, not core 8-9"),
        ("core:32", "the machine has cores 0-31, not core 32"),
    ],
)
def test_what_the_machine_does_not_have(text: str, why: str) -> None:
    with pytest.raises(SlotError) as caught:
        cores_of(Slot.parse(text), server())
    assert caught.value.why == why
