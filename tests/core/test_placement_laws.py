"""Laws of placement that hold on every machine and for every layout."""

from hypothesis import given
from hypothesis import strategies as st

from engine.core.cpuset import CpuSet
from engine.core.engine_traits import EngineTraits
from engine.core.held import Held
from engine.core.layout import Instance, Layout, Ports
from engine.core.memory_nodes import usable_memory
from engine.core.placement import place
from engine.core.topology import Machine
from tests.machines_by_hand import MACHINES

slots = st.sampled_from(
    [
        *("auto", "auto", "auto", "each numa", "each package", "each gpu", "machine", "numa:0"),
        *("numa:1", "numa:0-1", "package:0", "package:1", "core:0", "core:1-2", "pu:0", "pu:1"),
        *("pu:0,8", "gpu:0", "gpu:1", "gpu:0-1", "gpu:3", "gpu:4", "numa:0/core:0-1"),
        *("package:0/core:1", "numa:1/core:2-3", "numa:2", "machine/core:0-3", "numa:9"),
    ]
)


@st.composite
def wishes(draw: st.DrawFn, name: str) -> Instance:
    slot = draw(slots)
    free = slot == "auto" or slot.startswith("each")
    return Instance(
        name=name,
        slot=slot,
        engine=draw(st.sampled_from(["torch", "reserving"])),
        count=draw(st.none() | st.integers(1, 5)) if free else None,
        cores=draw(st.none() | st.integers(1, 9)) if slot == "auto" else None,
        port=draw(st.none() | st.sampled_from([8001, 8002, 9500, 65535])),
        memory=draw(st.sampled_from(["bind", "preferred", "interleave", "local"])),
        reserve_cores=draw(st.none() | st.integers(0, 3)),
    )


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    names = draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True))
    first = draw(st.sampled_from([8001, 8001, 8999]))
    last = first + draw(st.sampled_from([2, 998]))
    instances = tuple(draw(wishes(name)) for name in names)
    return Layout(name="drawn", instances=instances, ports=Ports(first=first, last=last))


held_by_others = st.builds(
    lambda pus, ports, keeps: Held(
        {"other": CpuSet(pus)} if pus else {}, dict.fromkeys(ports, "other"), keeps
    ),
    st.frozensets(st.integers(0, 40), max_size=6),
    st.frozensets(st.sampled_from([8001, 8003, 8004, 9500]), max_size=3),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(8002, 8006), max_size=3),
)
machines = st.sampled_from(sorted(MACHINES)).map(MACHINES.__getitem__)


def whole_cores(machine: Machine, pus: CpuSet) -> CpuSet:
    return CpuSet(pu for core in machine.cores if core.pus & pus for pu in core.pus)


@given(machines, layouts(), held_by_others)
def test_laws_of_placement(machine: Machine, layout: Layout, held: Held) -> None:
    plan = place(machine, layout, held=held, traits={"reserving": EngineTraits(reserve_cores=1)})
    assert (
        place(machine, layout, held=held, traits={"reserving": EngineTraits(reserve_cores=1)})
        == plan
    )

    taken = [whole_cores(machine, at.pus) for at in plan.placements]
    taken += [whole_cores(machine, pus) for pus in held.pus.values()]
    every = [pu for pus in taken for pu in pus]
    assert len(every) == len(set(every)), "a core with two holders"

    memory = usable_memory(machine)
    for at in plan.placements:
        assert at.pus
        assert at.pus <= machine.pus.usable
        assert at.reasons
        binding = at.memory
        if binding.policy == "local":
            assert binding.nodes == ""
        else:
            nodes = CpuSet.parse(binding.nodes)
            assert nodes
            assert nodes <= memory
            assert binding.policy != "preferred" or len(nodes) == 1
        near = CpuSet(
            node for core in machine.cores if core.pus & at.pus for node in core.numa_nodes
        )
        assert (len(near) > 1) == any("spans NUMA nodes" in text for text in at.warnings)
        assert at.tensor_parallel == max(1, len(at.gpus))

    ports = [at.port for at in plan.placements]
    assert len(ports) == len(set(ports))
    assert not set(ports) & set(held.ports)
    by_name = {wish.name: wish for wish in plan.wishes}
    for at in plan.placements:
        named = by_name[at.instance].port
        kept = at.port == held.preferred_ports.get(at.instance)
        assert (
            at.port == named
            if named
            else kept or (layout.ports.first <= at.port <= layout.ports.last)
        )

    gpus = [gpu for at in plan.placements for gpu in at.gpus]
    assert len(gpus) == len(set(gpus))

    for refusal in plan.refusals:
        assert len(refusal.why) > 10
        assert len(refusal.do) > 10
    answered = [at.instance for at in plan.placements]
    assert len(answered) == len(set(answered))
    refused = {refusal.instance for refusal in plan.refusals}
    for wish in plan.wishes:
        assert wish.name in answered or wish.name in refused


@given(machines, st.integers(1, 12))
def test_auto_wastes_no_core_and_shares_evenly(machine: Machine, count: int) -> None:
    layout = Layout(name="x", instances=(Instance(name="a", count=count),))
    plan = place(machine, layout)
    usable = [core for core in machine.cores if core.pus & machine.pus.usable]
    if plan.refusals:
        assert count > len(usable)
        assert all(refusal.why == "no free core is left" for refusal in plan.refusals)
        assert len(plan.placements) == len(usable)
        return
    sizes = [len(at.pus) for at in plan.placements]
    # Inside one node there is nothing left and nobody has two cores more than another.
    used: dict[CpuSet, list[int]] = {}
    for at in plan.placements:
        home = next(core.numa_nodes for core in machine.cores if core.pus & at.pus)
        used.setdefault(home, []).append(len(at.pus))
    for home, parts in used.items():
        assert sum(parts) == sum(1 for core in usable if core.numa_nodes == home)
        assert max(parts) - min(parts) <= 1
    # A node is only left empty when it has too few cores to better the smallest share.
    for node in machine.numa_nodes:
        cores = sum(1 for core in usable if node.os_index in core.numa_nodes)
        if cores and CpuSet([node.os_index]) not in used:
            assert cores <= max(sizes)
