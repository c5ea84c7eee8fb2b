"""Placement where a machine or a wish is odd: bare nodes, taken ports, limits of its own."""

from dataclasses import replace

from engine.core.cpuset import CpuSet
from engine.core.layout import Instance, Layout
from engine.core.limits import Limits
from engine.core.placement import Placement, Plan, place
from engine.core.placing.held import Held
from engine.core.sizing import Needs
from engine.core.status import MemoryBinding
from tests.machines_by_hand import build


class Sizes:
    """The same for every instance."""

    def __init__(self, whole: int) -> None:
        self.whole = whole

    def needs(self, wish: Instance, tensor_parallel: int) -> Needs:
        return Needs(total_bytes=self.whole, per_device_bytes=self.whole)

    def would_fit(
        self, wish: Instance, tensor_parallel: int, available_bytes: int, devices: int
    ) -> tuple[str, ...]:
        return ()


def layout_of(*wishes: Instance) -> Layout:
    return Layout(name="x", instances=wishes)


def placed(plan: Plan) -> tuple[Placement, ...]:
    assert not plan.refusals, plan.refusals
    return plan.placements


def wish(name: str, slot: str = "auto", **more: object) -> Instance:
    return Instance(name=name, slot=slot, **more)  # type: ignore[arg-type]


def test_a_gpu_on_a_node_without_cores_takes_them_from_the_nearest_node() -> None:
    box = build([4, 0, 4], nodes_per_package=1, gpus_on=[1, 1])
    distances = ((10, 32, 21), (32, 10, 12), (21, 12, 10))
    box = replace(box, distances=distances)
    (at, other) = placed(place(box, layout_of(wish("a", "gpu:0"), wish("b", "gpu:1"))))
    assert (str(at.pus), str(other.pus)) == ("4-5", "6-7")
    assert at.memory == MemoryBinding("bind", "2")
    assert at.warnings == (
        "NUMA node 1, the node of GPU 0, has no core that we may use: its cores come from node 2, "
        "distance 12 against 10 at home",
    )
    narrowed = replace(box, pus=replace(box.pus, usable=CpuSet([0, 1])))
    (far,) = placed(place(narrowed, layout_of(wish("a", "gpu:0"))))
    assert str(far.pus) == "0"
    assert "its cores come from node 0, distance 32 against 10 at home" in far.warnings[0]


def test_a_wish_that_is_refused_for_its_port_takes_no_place_from_the_others() -> None:
    box = build([8])
    wishes = (wish("a"), wish("b", port=8001), wish("c"))
    held = Held({}, {8001: "another program"})
    plan = place(box, layout_of(*wishes), held=held)
    assert [str(one.pus) for one in plan.placements] == ["0-3", "4-7"]
    (refusal,) = plan.refusals
    assert (refusal.instance, refusal.why) == ("b", "port 8001 is taken by another program")


def test_a_limit_below_what_is_needed_is_refused_and_others_are_told() -> None:
    box = build([8])
    (at,) = placed(
        place(box, layout_of(wish("a", "core:0-3", memory_limit="2GiB", cpu_limit=4.0)))
    )
    assert "at most 2 GiB of memory and the time of 4 cores" in at.reasons
    assert "cpu_limit = 4 limits nothing: it has 4 PUs" in at.warnings
    assert at.limits == Limits(2 << 30, 4.0)
    few = layout_of(wish("a", memory_limit="2GiB"))
    (refusal,) = place(box, few, sizes=Sizes(3 << 30)).refusals
    assert refusal.why.startswith("needs 3.0 GiB")
    assert "its memory_limit is 2.0 GiB" in refusal.why
