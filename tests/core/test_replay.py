"""A saved layout on the same machine, on a renumbered one, and on another one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.errors import MachineDiffers, SlotError
from engine.core.layout import Instance, Layout
from engine.core.likeness.fingerprint import Expect, fingerprint
from engine.core.likeness.renumbering import Renumbering, renumbering
from engine.core.likeness.shape import Shape, shape_of
from engine.core.replay import Replay, replay
from engine.core.slot import Slot, cores_of
from engine.core.topology import Core, Machine, NumaNode
from tests.machines_by_hand import (
    GIB,
    MACHINES,
    build,
    gpu,
    server,
    with_gpus,
    with_memory_only_node,
)


def layout(slots: Sequence[str], expect: Expect | None) -> Layout:
    wishes = tuple(Instance(name=f"i{n}", slot=slot) for n, slot in enumerate(slots))
    return Layout(name="l", instances=wishes, expect=expect)


def replayed(saved: Machine, here: Machine, *slots: str) -> Replay:
    return replay(layout(slots, fingerprint(saved)), here)


def slots_of(answer: Replay) -> list[str]:
    return [wish.slot for wish in answer.layout.instances]


def refusal(saved: Machine, here: Machine) -> str:
    with pytest.raises(MachineDiffers) as refused:
        replayed(saved, here, "numa:0")
    assert "Remove [expect]" in refused.value.do
    assert refused.value.exit_code == 3
    return refused.value.why


def renumbered(
    machine: Machine,
    *,
    packages: Mapping[int, int] | None = None,
    nodes: Mapping[int, int] | None = None,
    pus: Mapping[int, int] | None = None,
    gpus: Mapping[int, int] | None = None,
) -> Machine:
    """The same machine under other numbers; what is not named keeps its own."""

    def through(numbers: Mapping[int, int] | None, indexes: CpuSet) -> CpuSet:
        return CpuSet((numbers or {}).get(index, index) for index in indexes)

    def package_of(index: int | None) -> int | None:
        return None if index is None else (packages or {}).get(index, index)

    cores = [
        Core(
            package_of(core.package),
            core.core_id,
            through(nodes, core.numa_nodes),
            through(pus, core.pus),
            core.kind,
        )
        for core in machine.cores
    ]
    ordered = sorted(
        range(len(machine.numa_nodes)),
        key=lambda at: (nodes or {}).get(machine.numa_nodes[at].os_index, at),
    )
    numa_nodes = []
    for at in ordered:
        node = machine.numa_nodes[at]
        numa_nodes.append(
            NumaNode(
                min(through(nodes, NodeSet([node.os_index]))),
                through(pus, node.cpus),
                node.memory_bytes,
                tuple(sorted(through(packages, CpuSet(node.packages)))),
                node.kind,
                through(nodes, node.initiators),
            )
        )
    distances = machine.distances
    return replace(
        machine,
        packages=tuple(
            sorted(
                (
                    replace(
                        one,
                        os_index=min(through(packages, CpuSet([one.os_index]))),
                        numa_nodes=through(nodes, one.numa_nodes),
                    )
                    for one in machine.packages
                ),
                key=lambda one: one.os_index,
            )
        ),
        numa_nodes=tuple(numa_nodes),
        cores=tuple(sorted(cores, key=lambda core: (core.package or 0, min(core.pus)))),
        pus=replace(
            machine.pus,
            online=through(pus, machine.pus.online),
            usable=through(pus, machine.pus.usable),
        ),
        distances=None
        if distances is None
        else tuple(tuple(distances[a][b] for b in ordered) for a in ordered),
        gpus=tuple(
            sorted(
                (
                    replace(
                        one,
                        index=(gpus or {}).get(one.index, one.index),
                        numa_node=None
                        if one.numa_node is None
                        else (nodes or {}).get(one.numa_node, one.numa_node),
                    )
                    for one in machine.gpus
                ),
                key=lambda one: one.index,
            )
        ),
    )


def far_to_adjacent(machine: Machine) -> dict[int, int]:
    """PUs in the order of their cores, siblings beside each other."""
    order = [pu for core in machine.cores for pu in core.pus]
    return {old: new for new, old in enumerate(order)}


# On the same machine


def test_without_expect_nothing_is_said() -> None:
    asked = layout(["numa:7"], None)
    assert replay(asked, server()) == Replay("equal", asked)


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_on_the_same_machine_nothing_changes(machine: Machine) -> None:
    slots = ["auto", "each numa", "machine", "core:0", "pu:0", "machine/core:1", "numa:9"]
    answer = replayed(machine, machine, *slots)
    assert (answer.verdict, slots_of(answer), dict(answer.notes)) == ("equal", slots, {})
    assert answer.layout.expect is None


def test_memory_may_shrink_a_little_and_grow_at_will() -> None:
    small, large = build([4], memory_bytes=58 * GIB), build([4], memory_bytes=512 * GIB)
    assert replayed(build([4]), small, "numa:0").verdict == "equal"
    assert replayed(build([4]), large, "numa:0").verdict == "equal"
    assert "64 GiB of memory, here 32 GiB" in refusal(
        build([4]), build([4], memory_bytes=32 * GIB)
    )


def test_unknown_memory_is_not_compared() -> None:
    unknown = build([4], memory_bytes=None)
    assert replayed(build([4]), unknown, "numa:0").verdict == "equal"
    assert replayed(unknown, build([4]), "numa:0").verdict == "equal"


# The three keys alone


def test_three_keys_alone_are_equal_or_refused() -> None:
    expect = Expect(packages=2, numa_nodes=2, gpus=["Arc A770"] * 5)
    answer = replay(layout(["gpu:0", "numa:1"], expect), with_gpus())
    assert (answer.verdict, slots_of(answer)) == ("equal", ["gpu:0", "numa:1"])
    with pytest.raises(MachineDiffers) as refused:
        replay(layout(["auto"], Expect(packages=1, numa_nodes=4, gpus=["Arc B580"])), server())
    assert refused.value.why == (
        "1 package expected, this machine has 2; 1 GPU Arc B580 expected, this machine has none"
    )


def test_a_key_left_out_is_not_compared() -> None:
    assert replay(layout(["auto"], Expect()), server()).verdict == "equal"
    assert replay(layout(["auto"], Expect(gpus=[])), server()).verdict == "equal"


# The same shape under other numbers


def test_a_node_with_another_number() -> None:
    here = build([4, 4])
    saved = renumbered(here, nodes={1: 8})
    answer = replayed(saved, here, "numa:0", "numa:8", "numa:0,8", "numa:8/core:2-3", "auto")
    assert answer.verdict == "compatible"
    assert slots_of(answer) == ["numa:0", "numa:1", "numa:0-1", "numa:1/core:2-3", "auto"]
    assert answer.notes["i1"] == "numa:8 of the saved machine is numa:1 here"
    assert set(answer.notes) == {"i1", "i2", "i3"}


def test_a_package_with_another_number() -> None:
    saved = renumbered(build([4, 6]), packages={0: 1, 1: 0})
    answer = replayed(saved, build([4, 6]), "package:0", "package:1/core:0-3", "core:0-5")
    assert slots_of(answer) == ["package:1", "package:0/core:0-3", "core:4-9"]


def test_siblings_that_move_beside_each_other() -> None:
    saved = build([2, 2], smt=2)
    here = renumbered(saved, pus=far_to_adjacent(saved))
    answer = replayed(saved, here, "pu:0,4", "pu:0-3", "numa:1/core:0", "core:1")
    assert answer.verdict == "compatible"
    assert slots_of(answer) == ["pu:0-1", "pu:0,2,4,6", "numa:1/core:0", "core:1"]
    assert answer.notes["i0"] == "pu:0,4 of the saved machine is pu:0-1 here"


def test_gpus_in_another_order() -> None:
    cards = (gpu(0, 0), replace(gpu(1, 0), name="Arc B580"), gpu(2, 1))
    saved = replace(build([4, 4]), gpus=cards)
    here = renumbered(saved, gpus={0: 1, 1: 2, 2: 0})
    answer = replayed(saved, here, "gpu:1", "gpu:0,2", "gpu:2")
    assert slots_of(answer) == ["gpu:2", "gpu:0-1", "gpu:0"]


def test_gpus_that_hang_on_other_nodes_take_the_nodes_along() -> None:
    saved, here = build([4, 4], gpus_on=[0, 0]), build([4, 4], gpus_on=[1, 1])
    answer = replayed(saved, here, "numa:0", "numa:1", "gpu:0-1")
    assert slots_of(answer) == ["numa:1", "numa:0", "gpu:0-1"]


def test_memory_without_pus_stays_near_its_node() -> None:
    saved = with_memory_only_node()
    here = renumbered(saved, nodes={0: 1, 1: 0}, packages={0: 1, 1: 0})
    assert slots_of(replayed(saved, here, "numa:1-2", "numa:0")) == ["numa:0,2", "numa:1"]


def test_what_is_alike_keeps_its_number() -> None:
    saved = server()
    here = renumbered(saved, nodes={0: 2, 2: 0}, packages={0: 1, 1: 0})
    # Package 0 holds the nodes 0 and 3 here, as it held 0 and 1 there.
    answer = replayed(saved, here, "numa:0", "numa:1", "numa:0-1", "package:0")
    assert slots_of(answer) == ["numa:0", "numa:3", "numa:0,3", "package:0"]


def test_a_slot_that_the_saved_machine_did_not_have() -> None:
    saved = renumbered(build([4, 4]), nodes={1: 8})
    with pytest.raises(SlotError, match=r"was not on the saved machine: .*0,8, not of 1"):
        replayed(saved, build([4, 4]), "numa:1")


def test_a_slot_that_nobody_has_on_the_same_machine_is_left_to_placement() -> None:
    assert slots_of(replayed(server(), server(), "numa:9")) == ["numa:9"]


def test_nodes_that_span_several_packages() -> None:
    base = build([2] * 16)
    saved = replace(
        base,
        numa_nodes=build([8] * 4).numa_nodes,
        cores=tuple(
            replace(core, numa_nodes=NodeSet([(core.package or 0) // 4])) for core in base.cores
        ),
    )
    here = renumbered(saved, packages={1: 14, 14: 1, 3: 7, 7: 3}, nodes={0: 2, 2: 0})
    numbers = renumbering(shape_of(saved), shape_of(here))
    assert numbers is not None
    is_isomorphism(numbers, shape_of(saved), shape_of(here))


# Another machine


def test_counts_differ() -> None:
    assert refusal(build([4] * 4), build([4, 4])) == (
        "4 packages expected, this machine has 2; 4 NUMA nodes expected, this machine has 2"
    )


def test_gpus_of_another_name_or_on_another_node() -> None:
    bare, full = build([4, 4]), build([4, 4], gpus_on=[1, 1])
    assert "2 GPUs Arc A770 expected, this machine has none" in refusal(full, bare)
    apart = build([4, 4], gpus_on=[0, 1])
    assert "the saved NUMA node 1 had 2 GPUs Arc A770, here 1 GPU Arc A770" in refusal(full, apart)


def test_cores_differ() -> None:
    assert "the saved package 1 had 4 cores of 1 PU, here 3 cores of 1 PU" in refusal(
        build([4, 4]), build([4, 3])
    )
    assert "had 4 cores of 2 PUs, here 4 cores of 1 PU" in refusal(build([4], smt=2), build([4]))


def test_packages_that_are_cut_otherwise() -> None:
    assert "had 2 NUMA nodes" in refusal(
        build([4, 4, 4, 4], nodes_per_package=2),
        replace(build([4, 4, 8], nodes_per_package=2), numa_nodes=build([4] * 4).numa_nodes),
    )


def test_memory_of_another_kind() -> None:
    far = with_memory_only_node()
    hbm = replace(far, numa_nodes=(*far.numa_nodes[:2], replace(far.numa_nodes[2], kind="hbm")))
    assert "node 2 was cxl memory, here hbm" in refusal(far, hbm)


def test_many_like_nodes_of_which_one_lost_its_memory_are_refused_soon() -> None:
    saved = build([2] * 16)
    poor = replace(saved.numa_nodes[7], memory_bytes=8 * GIB)
    here = replace(saved, numa_nodes=(*saved.numa_nodes[:7], poor, *saved.numa_nodes[8:]))
    assert "the saved NUMA node 7 had 64 GiB of memory, here 8 GiB" in refusal(saved, here)


def test_what_holds_of_several_is_said_once() -> None:
    poorer = build([2] * 4, memory_bytes=16 * GIB)
    assert refusal(build([2] * 4), poorer) == (
        "the saved NUMA nodes 0-3: each had 64 GiB of memory, here 16 GiB"
    )
    assert refusal(build([2] * 4, smt=2), build([2] * 4)) == (
        "the saved packages 0-3: each had 2 cores of 2 PUs, here 2 cores of 1 PU"
    )


# Laws


@st.composite
def permutations(draw: st.DrawFn, machine: Machine) -> dict[str, dict[int, int]]:
    """Other numbers for everything, also numbers that the machine did not have."""

    def numbers(old: Sequence[int], room: int) -> dict[int, int]:
        new = draw(st.permutations(range(len(old) + room)))
        return dict(zip(old, new, strict=False))

    return {
        "packages": numbers([one.os_index for one in machine.packages], 1),
        "nodes": numbers([one.os_index for one in machine.numa_nodes], 3),
        "pus": numbers([pu for core in machine.cores for pu in core.pus], 0),
        "gpus": numbers([one.index for one in machine.gpus], 0),
    }


tame = st.sampled_from(sorted(set(MACHINES) - {"largest", "uneven"})).map(MACHINES.__getitem__)


def is_isomorphism(numbers: Renumbering, saved: Shape, here: Shape) -> None:
    for mapped in (numbers.packages, numbers.nodes, numbers.cores, numbers.pus, numbers.gpus):
        assert len(set(mapped.values())) == len(mapped)
    assert set(numbers.cores.values()) == set(range(len(here.cores)))
    for index, core in enumerate(saved.cores):
        other = here.cores[numbers.cores[index]]
        assert other.package == (None if core.package is None else numbers.packages[core.package])
        assert other.nodes == CpuSet(numbers.nodes[node] for node in core.nodes)
        assert other.pus == CpuSet(numbers.pus[pu] for pu in core.pus)
        assert other.kind == core.kind
    for index, card in saved.gpus.items():
        found = here.gpus[numbers.gpus[index]]
        assert found.name == card.name
        assert found.node == (None if card.node is None else numbers.nodes[card.node])
    for index, node in saved.nodes.items():
        near = here.nodes[numbers.nodes[index]].near
        assert near == CpuSet(numbers.nodes[one] for one in node.near)


@given(tame, st.data())
def test_any_renumbering_is_found_again(machine: Machine, data: st.DataObject) -> None:
    here = renumbered(machine, **data.draw(permutations(machine)))
    saved_shape, here_shape = shape_of(machine), shape_of(here)
    numbers = renumbering(saved_shape, here_shape)
    assert numbers is not None
    is_isomorphism(numbers, saved_shape, here_shape)
    assert renumbering(saved_shape, here_shape) == numbers
    slots = ["machine/core:0", "core:0-1", "pu:0"]
    slots += [f"numa:{node.os_index}" for node in machine.numa_nodes]
    slots += [f"package:{package.os_index}/core:0" for package in machine.packages]
    slots += [f"gpu:{card.index}" for card in machine.gpus]
    slots = [slot for slot in slots if Slot.parse(slot).kind != "pu" or 0 in machine.pus.online]
    answer = replayed(machine, here, *slots)
    for old, new in zip(slots, slots_of(answer), strict=True):
        named = {machine.cores.index(core) for core in cores_of(Slot.parse(old), machine)}
        found = {here.cores.index(core) for core in cores_of(Slot.parse(new), here)}
        assert found == {numbers.cores[core] for core in named}


def told_apart() -> Machine:
    """No two packages, nodes or GPUs are alike, so that only one renumbering is right."""
    base = build([2, 3, 4, 5], nodes_per_package=2, smt=2, gpus_on=[0, 1, 1, 3, None])
    names = ("Arc A770", "Arc A770", "Arc B580", "Arc A770", "Arc A770")
    cards = tuple(replace(card, name=name) for card, name in zip(base.gpus, names, strict=True))
    return replace(base, gpus=cards)


@given(permutations(told_apart()), st.booleans())
def test_slots_name_the_same_cores_and_gpus(
    numbers: dict[str, dict[int, int]], adjacent: bool
) -> None:
    saved = told_apart()
    # Like cores of one node are only told apart by their order, so it stays what it was.
    numbers["pus"] = far_to_adjacent(saved) if adjacent else {}
    here = renumbered(saved, **numbers)
    pus, gpus = numbers["pus"], numbers["gpus"]
    slots = [
        *("machine/core:2-6", "core:0,3,13", "package:0", "package:1/core:1,8", "numa:3"),
        *("numa:0,3", "numa:2/core:1-2", "numa:0,3/core:1-3", "pu:0,3,16", "pu:27"),
        *("gpu:0", "gpu:2", "gpu:1,4"),
    ]
    answer = replayed(saved, here, *slots)
    for old, new in zip(map(Slot.parse, slots), map(Slot.parse, slots_of(answer)), strict=True):
        if old.kind == "gpu":
            assert new.indexes == CpuSet(gpus[index] for index in old.indexes)
            continue
        if old.kind == "pu":
            assert new.indexes == CpuSet(pus.get(pu, pu) for pu in old.indexes)
        there = {CpuSet(pus.get(pu, pu) for pu in core.pus) for core in cores_of(old, saved)}
        assert {core.pus for core in cores_of(new, here)} == there


@given(tame, st.data())
def test_a_node_less_is_refused(machine: Machine, data: st.DataObject) -> None:
    if not machine.numa_nodes:
        return
    gone = data.draw(st.sampled_from(machine.numa_nodes)).os_index
    kept = tuple(node for node in machine.numa_nodes if node.os_index != gone)
    here = replace(
        machine,
        numa_nodes=kept,
        cores=tuple(core for core in machine.cores if gone not in core.numa_nodes),
        distances=None,
    )
    why = refusal(machine, here)
    assert f"this machine has {len(kept)}" in why


@given(tame, st.data())
def test_replaying_twice_changes_nothing_more(machine: Machine, data: st.DataObject) -> None:
    here = renumbered(machine, **data.draw(permutations(machine)))
    once = replayed(machine, here, "core:0", "auto")
    assert replay(once.layout, here) == Replay("equal", once.layout)
    again = msgspec.structs.replace(once.layout, expect=fingerprint(here))
    assert replay(again, here).verdict == "equal"
