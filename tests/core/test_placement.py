"""Placement: who gets which cores, memory and port, and why somebody gets none."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from engine.core.cpuset import CpuSet
from engine.core.errors import SlotError
from engine.core.layout import Instance, Layout, Ports
from engine.core.placement import Placement, Plan, Refusal, moved, place
from engine.core.placing.engine_traits import EngineTraits
from engine.core.placing.held import Held
from engine.core.status import MemoryBinding
from engine.core.strangers import Stranger
from engine.core.topology import Machine
from tests.machines_by_hand import (
    GIB,
    build,
    largest,
    narrowed,
    server,
    small,
    uneven,
    with_gpus,
    with_memory_only_node,
    with_memoryless_node,
    with_offline_pus,
    without_nodes,
)


def layout_of(*wishes: Instance, ports: Ports | None = None) -> Layout:
    return Layout(name="x", instances=wishes, ports=ports or Ports())


def seats(plan: Plan) -> dict[str, str]:
    assert not plan.refusals, plan.refusals
    return {at.instance: str(at.pus) for at in plan.placements}


def wish(name: str, slot: str = "auto", **more: object) -> Instance:
    return Instance(name=name, slot=slot, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("machine", "wishes", "expected"),
    [
        (small(), [wish("a"), wish("b")], {"a": "0", "b": "1"}),
        (server(), [wish("a")], {"a": "0-7"}),
        (server(), [wish("a"), wish("b")], {"a": "0-7", "b": "8-15"}),
        (server(), [wish("a", count=3)], {"a-0": "0-7", "a-1": "8-15", "a-2": "16-23"}),
        (build([8, 8]), [wish("a", count=3)], {"a-0": "0-3", "a-1": "4-7", "a-2": "8-15"}),
        (build([3]), [wish("a", count=2)], {"a-0": "0-1", "a-1": "2"}),
        (build([8, 1]), [wish("a", count=2)], {"a-0": "0-3", "a-1": "4-7"}),
        (
            uneven(),
            [wish("a", count=4)],
            {"a-0": "0-21", "a-1": "22-42", "a-2": "43-84", "a-3": "85-126"},
        ),
        # the largest first, whatever the file's order: otherwise b would find no room
        (build([8]), [wish("a"), wish("b", cores=6)], {"a": "6-7", "b": "0-5"}),
        (
            build([8, 8]),
            [wish("a", cores=4), wish("b", cores=4), wish("c", cores=8)],
            {"a": "0-3", "b": "4-7", "c": "8-15"},
        ),
        # a place of its own comes before a free choice
        (build([4]), [wish("a"), wish("b", "core:0-1")], {"a": "2-3", "b": "0-1"}),
        (server(), [wish("a", "each package", count=1)], {"a-0": "0-15"}),
        (server(), [wish("a", "each numa", count=2)], {"a-0": "0-7", "a-1": "8-15"}),
        (server(), [wish("a", "pu:33,1")], {"a": "1,33"}),
        (server(), [wish("a", "numa:3/core:0,7")], {"a": "24,31"}),
        (with_offline_pus(), [wish("a", "each numa")], {"a-0": "0,5", "a-1": "2-3"}),
        (narrowed(), [wish("a", "numa:0")], {"a": "0-1"}),
        (narrowed(), [wish("a", "each numa")], {"a-0": "0-1", "a-1": "12"}),
        (with_memory_only_node(), [wish("a", "each numa")], {"a-0": "0-3", "a-1": "4-7"}),
        (without_nodes(), [wish("a"), wish("b")], {"a": "0-1", "b": "2-3"}),
        (largest(), [wish("a", "package:7")], {"a": "896-1023"}),
        # GPUs: the cores of their node, shared with the GPUs beside them
        (
            with_gpus(),
            [wish("a", "each gpu", count=4)],
            {"a-0": "0-4", "a-1": "5-9", "a-2": "10-15", "a-3": "16-31"},
        ),
        (with_gpus(), [wish("a", "gpu:0-1")], {"a": "0-9"}),
        (with_gpus(), [wish("a", "gpu:3")], {"a": "16-31"}),
        (with_gpus(), [wish("a", "gpu:0,3")], {"a": "0-4,16-31"}),
        (
            with_gpus(),
            [wish("a", "gpu:3"), wish("b", "numa:1/core:0-7")],
            {"a": "24-31", "b": "16-23"},
        ),
        # beside instances on cores a GPU takes few
        (with_gpus(), [wish("a"), wish("b", "gpu:3")], {"a": "0-15", "b": "16-19"}),
        (with_gpus(), [wish("a", "gpu:3", cores=6)], {"a": "16-21"}),
    ],
)
def test_who_gets_what(machine: Machine, wishes: list[Instance], expected: dict[str, str]) -> None:
    assert seats(place(machine, layout_of(*wishes))) == expected


def test_a_reserve_is_taken_from_the_end_and_stays_with_the_instance() -> None:
    plan = place(server(), layout_of(wish("a", "numa:0", reserve_cores=2), wish("b", "core:6")))
    assert str(plan.placements[0].pus) == "0-5"
    assert "2 reserved for the API process and the kernel: PU 6-7" in plan.placements[0].reasons
    assert plan.refusals[0].why == "core:6 overlaps a (PU 6,38)"


def test_what_a_driver_reserves_never_costs_the_place() -> None:
    layout = layout_of(
        wish("a", "core:0", engine="vllm-cpu"), wish("b", "core:1-2", engine="vllm-cpu")
    )
    plan = place(server(), layout, traits={"vllm-cpu": EngineTraits(reserve_cores=1)})
    assert seats(plan) == {"a": "0", "b": "1"}
    asked = layout_of(wish("a", "core:0", reserve_cores=1))
    assert place(server(), asked).refusals[0].why == (
        "reserve_cores = 1 leaves none of the slot's 1 core"
    )


@pytest.mark.parametrize(
    ("machine", "wishes", "why"),
    [
        (
            server(),
            [wish("a", "numa:0"), wish("b", "package:0")],
            "package:0 overlaps a (PU 0-7,32-39)",
        ),
        (server(), [wish("a", "pu:0"), wish("b", "pu:32")], "pu:32 overlaps a (PU 32)"),
        (server(), [wish("a", "numa:7")], "this machine has NUMA nodes 0-3, not NUMA node 7"),
        (server(), [wish("a", cores=9)], "cores = 9, and no NUMA node has more than 8 free"),
        (small(), [wish("a", count=3)], "no free core is left"),
        (server(), [wish("a", "each gpu")], "this machine has no GPU to put a copy on"),
        (
            without_nodes(),
            [wish("a", "each numa")],
            "this machine has no NUMA node with a usable PU",
        ),
        (
            server(),
            [wish("a", "each numa", count=5)],
            "this machine has 4 places of that kind: numa:0",
        ),
        (
            narrowed(),
            [wish("a", "core:0-2")],
            "core:0-2 needs PU 2,10, outside the PUs that we may",
        ),
        (narrowed(), [wish("a", "pu:12-13")], "pu:12-13 needs PU 13, outside the PUs that we may"),
        (with_memory_only_node(), [wish("a", "numa:2")], "numa:2 has no PU that we may use"),
        (with_offline_pus(), [wish("a", "pu:1")], "not PU 1"),
        (server(), [wish("a", port=8001), wish("b", port=8001)], "port 8001 is taken by a"),
        (server(), [wish("a", port=65534, count=3)], "would pass port 65535"),
        (with_gpus(), [wish("a", "gpu:1"), wish("b", "gpu:0-1")], "GPU 1 is held by a"),
        (
            with_gpus(),
            [wish("a", "numa:1"), wish("b", "gpu:3")],
            "no core that we may use is free",
        ),
        (server(), [wish("a", count=2), wish("a-1")], "are both named a-1"),
    ],
)
def test_a_refusal_says_why(machine: Machine, wishes: list[Instance], why: str) -> None:
    plan = place(machine, layout_of(*wishes))
    assert [refusal for refusal in plan.refusals if why in refusal.why], plan.refusals


def only(plan: Plan) -> Placement:
    assert not plan.refusals, plan.refusals
    return plan.placements[-1]


def test_memory_follows_the_cores() -> None:
    assert only(place(server(), layout_of(wish("a", "numa:2")))).memory == MemoryBinding(
        "bind", "2"
    )
    two = only(place(server(), layout_of(wish("a", "numa:1-2"))))
    assert two.memory == MemoryBinding("bind", "1-2")
    assert two.warnings == (
        "spans NUMA nodes 1-2: distance 21 against 10 at home; one instance per node avoids it",
    )
    half = only(place(server(), layout_of(wish("a", "package:0", memory="interleave"))))
    assert half.memory == MemoryBinding("interleave", "0-1")
    assert "distance 12 against 10" in half.warnings[0]


def test_preferred_memory_is_one_node_because_the_kernel_takes_one() -> None:
    at = only(place(server(), layout_of(wish("a", "core:6-15", memory="preferred"))))
    assert at.memory == MemoryBinding("preferred", "1")
    assert "memory preferred from NUMA node 1, the node of most of its cores" in at.reasons


def test_a_node_without_memory_borrows_from_the_nearest() -> None:
    at = only(place(with_memoryless_node(), layout_of(wish("a", "numa:1"))))
    assert at.memory == MemoryBinding("bind", "2")
    assert at.warnings == (
        "NUMA node 1 has no memory that we may use: it comes from node 2, "
        "distance 14 against 10 at home",
    )
    assert not any("node of its cores" in reason for reason in at.reasons)
    # A free choice takes a node with memory before one without.
    first = place(with_memoryless_node(), layout_of(wish("a"), wish("b")))
    assert seats(first) == {"a": "0-3", "b": "8-11"}


def test_memory_outside_our_cpuset_is_not_bound_to() -> None:
    at = only(place(narrowed(), layout_of(wish("a", "numa:1"))))
    assert at.memory == MemoryBinding("bind", "0")
    assert "distance 21" in at.warnings[0]


def test_without_numa_nodes_memory_is_not_bound() -> None:
    at = only(place(without_nodes(), layout_of(wish("a"))))
    assert at.memory == MemoryBinding("local", "")
    assert "this kernel tells no NUMA nodes: memory is not bound" in at.reasons


def test_named_siblings_of_one_core_are_warned_about() -> None:
    at = only(place(server(), layout_of(wish("a", "pu:0,32"))))
    assert at.warnings == ("2 PUs share 1 core: SMT siblings compete",)


def test_what_is_held_is_left_alone_with_its_siblings() -> None:
    held = Held({"x": CpuSet([32])}, {8001: "x"})
    at = only(place(server(), layout_of(wish("a")), held=held))
    assert (str(at.pus), at.port) == ("8-15", 8002)
    refused = place(server(), layout_of(wish("a", "core:0")), held=held).refusals
    assert refused == (
        Refusal(
            "a",
            "core:0 overlaps x (PU 0,32)",
            "Give each instance cores of its own, e.g. numa:0/core:0-7 and numa:0/core:8-15",
        ),
    )
    gpu = Held({}, {}, gpus={0: "x"})
    assert (
        "GPU 0 is held by x"
        in place(with_gpus(), layout_of(wish("a", "gpu:0")), held=gpu).refusals[0].why
    )


def test_ports_are_kept_named_or_the_lowest_free() -> None:
    held = Held({}, {8002: "nginx"}, {"b": 8005, "gone": 8001, "a": 8002})
    plan = place(
        server(), layout_of(wish("a"), wish("b"), wish("c", port=8003), wish("d")), held=held
    )
    ports = {at.instance: at.port for at in plan.placements}
    # 8001 belongs to one that is ending, so a free one is better.
    assert ports == {"a": 8004, "b": 8005, "c": 8003, "d": 8006}


def test_the_port_of_one_that_ends_is_better_than_none() -> None:
    held = Held({}, {}, {"gone": 8001})
    plan = place(server(), layout_of(wish("a"), ports=Ports(first=8001, last=8001)), held=held)
    assert only(plan).port == 8001
    kept = Held({}, {}, {"b": 8001})
    both = layout_of(wish("a"), wish("b"), ports=Ports(first=8001, last=8001))
    plan = place(server(), both, held=kept)
    assert [at.instance for at in plan.placements] == ["b"]
    assert plan.refusals[0].why == "no port is free in 8001-8001"


def test_reserved_cores_are_shared_with_an_engine_that_binds_its_own_threads() -> None:
    binds = {"torch": EngineTraits(reserve_cores=1, binds_threads=True)}
    one = only(place(build([4]), layout_of(wish("a", "numa:0")), traits=binds))
    assert (str(one.pus), str(one.reserved)) == ("0-3", "3")
    both = only(place(build([4, 4]), layout_of(wish("a", "machine")), traits=binds))
    assert (str(both.pus), str(both.reserved)) == ("0-7", "3,7")
    kept = {"torch": EngineTraits(reserve_cores=1)}
    one = only(place(build([4]), layout_of(wish("a", "numa:0")), traits=kept))
    assert (str(one.pus), str(one.reserved)) == ("0-2", "3")


def stranger(pus: str, *gpus: int) -> Stranger:
    return Stranger(812, "python3", 1001, "alice", CpuSet.parse(pus), None, gpus, 8, GIB, 60.0)


def test_strangers_are_avoided_and_told_of() -> None:
    held = Held({}, {}, strangers=(stranger("0-5"),))
    one = only(place(build([8, 8]), layout_of(wish("a", cores=4)), held=held))
    assert str(one.pus) == "8-11"
    assert "PU 0-5 left to python3 (pid 812, alice)" in one.reasons
    named = only(place(build([8, 8]), layout_of(wish("a", "numa:0")), held=held))
    assert str(named.pus) == "0-7"
    assert named.warnings == (
        "PU 0-5 is also held by python3 (pid 812, alice): both will be slower",
    )


def test_where_strangers_hold_everything_else_their_cores_are_shared() -> None:
    held = Held({}, {}, strangers=(stranger("0-5"),))
    plan = place(build([8]), layout_of(wish("a", cores=2), wish("b", cores=4)), held=held)
    assert seats(plan) == {"a": "6-7", "b": "0-3"}
    assert [len(at.warnings) for at in plan.placements] == [0, 1]


def test_of_a_strangers_cores_no_more_are_shared_than_need_be() -> None:
    held = Held({}, {}, strangers=(stranger("0-5"),))
    plan = place(build([8]), layout_of(wish("a", cores=4)), held=held)
    assert seats(plan) == {"a": "0-1,6-7"}
    near = build([8], gpus_on=[0])
    assert seats(place(near, layout_of(wish("a", "gpu:0", cores=4)), held=held)) == {
        "a": "0-1,6-7"
    }


def test_a_stranger_on_a_sibling_is_told_of() -> None:
    held = Held({}, {}, strangers=(stranger("8"),))
    one = only(place(build([8], smt=2), layout_of(wish("a", "core:0-1")), held=held))
    assert one.warnings == (
        "PU 8, on the same cores, is held by python3 (pid 812, alice): both will be slower",
    )


def hybrid(*, gpus_on: Sequence[int] = ()) -> Machine:
    """One node: performance cores 0 to 3 and efficiency cores 4 to 7."""
    base = build([8], gpus_on=gpus_on)
    kinds = ["performance"] * 4 + ["efficiency"] * 4
    cores = (replace(core, kind=kind) for core, kind in zip(base.cores, kinds, strict=True))
    return replace(base, cores=tuple(cores))


@pytest.mark.parametrize("other", ["efficiency", "any"])
def test_an_isolated_instance_is_alone_with_both_kinds_of_cores(other: str) -> None:
    alone = wish("a", strategy="isolate", cores=2)
    plan = place(hybrid(), layout_of(alone, wish("b", core_kind=other)))
    assert [(at.instance, str(at.pus)) for at in plan.placements] == [("a", "0-1")]
    assert plan.refusals[0].why == (
        "no free core is left, NUMA node 0 being for isolated instances alone"
    )
    plan = place(hybrid(), layout_of(wish("b"), wish("a", strategy="isolate", core_kind=other)))
    assert [at.instance for at in plan.placements] == ["b"]
    assert 'strategy = "isolate"' in plan.refusals[0].why


def test_an_isolated_instance_is_alone_where_strangers_cores_are_shared() -> None:
    held = Held({}, {}, strangers=(stranger("8-15"),))
    alone, packed = wish("a", strategy="isolate", cores=2), wish("b", strategy="pack", cores=5)
    plan = place(build([8, 8]), layout_of(alone, packed), held=held)
    assert seats(plan) == {"a": "0-1", "b": "8-12"}


@pytest.mark.parametrize(
    ("alone", "filling", "expected"),
    [
        ({"cores": 2}, {"cores": 4}, {"a": "0-1", "b-0": "8-11", "b-1": "12-15"}),
        ({"cores": 2}, {"gpus": 1}, {"a": "0-1", "b-0": "8-11", "b-1": "12-15"}),
        ({"gpus": 1}, {"gpus": 1}, {"a": "0-3", "b-0": "8-11", "b-1": "12-15"}),
    ],
)
def test_copies_that_fill_leave_an_isolated_instance_alone(
    alone: dict[str, object], filling: dict[str, object], expected: dict[str, str]
) -> None:
    machine = build([8, 8], gpus_on=[0, 0, 1, 1])
    wishes = (
        wish("a", "auto", strategy="isolate", **alone),
        wish("b", "auto", count="fill", **filling),
    )
    assert seats(place(machine, layout_of(*wishes))) == expected


@pytest.mark.parametrize(
    ("slot", "keys", "pus"),
    [
        ("gpu:0", {"core_kind": "efficiency", "cores": 2}, "4-5"),
        ("gpu:0", {"core_kind": "any", "cores": 6}, "0-5"),
        ("gpu:0", {"cores": 4}, "0-3"),
        # a share of the performance cores is left for the other card
        ("gpu:0", {}, "0-1"),
        ("gpu:0-1", {"core_kind": "efficiency"}, "4-7"),
    ],
)
def test_a_gpus_cores_are_counted_among_those_of_the_kind(
    slot: str, keys: dict[str, object], pus: str
) -> None:
    machine = hybrid(gpus_on=[0, 0])
    assert seats(place(machine, layout_of(wish("a", slot, **keys)))) == {"a": pus}


def test_too_few_cores_of_a_kind_beside_a_gpu_are_no_place() -> None:
    plan = place(hybrid(gpus_on=[0]), layout_of(wish("a", "gpu:0", cores=5)))
    assert "fewer than 5 performance cores that we may use are free there" in plan.refusals[0].why


def test_a_gpu_that_a_stranger_holds_is_left_to_him() -> None:
    held = Held({}, {}, strangers=(stranger("", 0),))
    machine = build([16], gpus_on=[0, 0])
    assert only(place(machine, layout_of(wish("a", gpus=1)), held=held)).gpus == (1,)
    named = only(place(machine, layout_of(wish("a", "gpu:0")), held=held))
    assert "a GPU of this slot is also held by python3 (pid 812, alice)" in named.warnings


def test_copies_that_fill_take_what_the_others_leave() -> None:
    fill = wish("f", cores=4, count="fill")
    assert seats(place(build([8, 6]), layout_of(fill))) == {
        "f-0": "0-3",
        "f-1": "4-7",
        "f-2": "8-11",
    }
    left = place(build([8, 6]), layout_of(fill, wish("b", "numa:1")))
    assert seats(left) == {"f-0": "0-3", "f-1": "4-7", "b": "8-13"}
    none = place(build([8, 6]), layout_of(fill, wish("a", "machine")))
    assert [refusal.instance for refusal in none.refusals] == ["f-0", "f-1", "f-2"]
    cards = place(build([16], gpus_on=[0] * 5), layout_of(wish("g", gpus=2, count="fill")))
    assert [at.gpus for at in cards.placements] == [(0, 1), (2, 3)]


def test_a_moved_wish_forgets_what_belonged_to_its_old_slot() -> None:
    copy = wish("a-0", "auto", cores=2, port=8001)
    assert moved(copy, "numa:1") == wish("a-0", "numa:1", port=8001)
    with pytest.raises(SlotError):
        moved(copy, "nuam:1")


def test_a_large_machine_is_placed_quickly_and_in_order() -> None:
    plan = place(largest(), layout_of(wish("a", count=256)))
    assert {len(at.pus) for at in plan.placements} == {4}
    named = [at.instance for at in plan.placements]
    assert all(int(a[2:]) < int(b[2:]) for a, b in pairwise(named))
