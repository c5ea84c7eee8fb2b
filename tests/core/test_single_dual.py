"""One card or two: the arms on made-up machines, and that the planner places them so."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine.core.comparing.single_dual import ONE, PAIRS, REPLICAS, TWO, single_dual
from engine.core.errors import UsageError
from engine.core.layout import Instance, Layout
from engine.core.synthetic import parse_synthetic
from engine.service.orders import Surroundings
from engine.service.planning import plan_layout

MACHINE = parse_synthetic("pack:2 numa:1 core:8 gpu:2*24GiB mem:64GiB")
WISH = Instance(
    name="m",
    engine="vllm-xpu",
    model="/m",
    slot="gpu:0",
    port=8001,
    env={"A": "1"},
    dtype="float16",
)


def test_the_three_arms() -> None:
    found = single_dual(WISH, MACHINE)
    assert found.cards == (0, 1)
    assert {name: [one.slot for one in arm] for name, arm in found.arms.items()} == {
        ONE: ["gpu:0"],
        TWO: ["gpu:0,1"],
        REPLICAS: ["gpu:0", "gpu:1"],
    }
    everyone = [one for arm in found.arms.values() for one in arm]
    assert len({one.name for one in everyone}) == 4, "they may have to run side by side"
    assert all((one.env, one.dtype, one.port) == ({"A": "1"}, "float16", None) for one in everyone)
    assert {name for pair in PAIRS for name in pair} == set(found.arms)


@pytest.mark.parametrize(
    ("slot", "cards"),
    [
        ("gpu:1", (1, 0)),
        ("gpu:3", (3, 2)),
        ("gpu:1,2", (1, 2)),
        ("auto", (0, 1)),
        ("each gpu", (0, 1)),
    ],
)
def test_the_second_card_is_the_nearest_of_its_kind(slot: str, cards: tuple[int, int]) -> None:
    wish = Instance(name="m", engine="vllm-xpu", slot=slot)
    assert single_dual(wish, MACHINE).cards == cards


def test_a_far_card_of_the_same_kind_is_better_than_a_near_one_of_another() -> None:
    gpus = tuple(replace(one, device="other") if one.index == 1 else one for one in MACHINE.gpus)
    found = single_dual(WISH, replace(MACHINE, gpus=gpus))
    assert found.cards == (0, 2)
    assert "on other NUMA nodes" in found.reason


@pytest.mark.parametrize(
    ("wish", "machine", "why"),
    [
        (Instance(name="m", slot="numa:0"), MACHINE, "is no GPU"),
        (Instance(name="m", slot="gpu:9"), MACHINE, "no GPU 9"),
        (Instance(name="m", slot="gpu:0", args={"tensor-parallel-size": 2}), MACHINE, "args fix"),
        (Instance(name="m", slot="gpu:0"), parse_synthetic("core:2 gpu:1"), "there is one card"),
        (Instance(name="m", slot="auto"), parse_synthetic("core:2"), "has 0 cards"),
        (
            WISH,
            replace(
                MACHINE,
                gpus=tuple(replace(one, device=str(one.index)) for one in MACHINE.gpus),
            ),
            "no two of its cards are of one kind",
        ),
    ],
)
def test_what_cannot_be_compared(wish: Instance, machine: object, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        single_dual(wish, machine)  # type: ignore[arg-type]


def test_the_planner_places_every_arm_as_it_says() -> None:
    found = single_dual(WISH, MACHINE)
    parallel = {}
    for name, arm in found.arms.items():
        around = Surroundings({}, Path("/nowhere"))
        plan = plan_layout(MACHINE, Layout(name=name, instances=arm), around, base="/nowhere")
        assert plan.refusals == ()
        parallel[name] = [
            (one.placement.gpus, one.placement.tensor_parallel) for one in plan.planned
        ]
    assert parallel == {
        ONE: [((0,), 1)],
        TWO: [((0, 1), 2)],
        REPLICAS: [((0,), 1), ((1,), 1)],
    }
