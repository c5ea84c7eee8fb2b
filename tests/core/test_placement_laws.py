"""Laws of placement that hold on every machine and for every layout.

They are the rules of `engine.core.placement`, each as an assertion. SLOTDECK_FUZZ=all tries many
more machines.
"""

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import TypeVar

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.command import Command, shell_line
from engine.core.cpuset import CpuSet, NodeSet
from engine.core.layout import Instance, Layout, Ports
from engine.core.placement import Placement, Plan, place
from engine.core.placing.engine_traits import EngineTraits
from engine.core.placing.held import Held
from engine.core.placing.memory_nodes import usable_memory
from engine.core.placing.memory_room import Sizes
from engine.core.slot import Slot, cores_of
from engine.core.strangers import Stranger, held_pus
from engine.core.topology import Core, Gpu, Machine
from tests.core.random_machines import (
    TRAITS,
    GivenSizes,
    competing,
    held,
    hungry,
    layouts,
    machines,
    made_up,
    modest,
    rivals_for_cards,
    sizes,
    strangers,
    what_runs,
    wishes,
)

EVERY = os.environ.get("SLOTDECK_FUZZ") == "all"  # noqa: TID251 - the tests' own setting
EXAMPLES = 5_000 if EVERY else 250
NO_ONE = Held({}, {})
Key = TypeVar("Key")
Value = TypeVar("Value")


def traits_of(wish: Instance) -> EngineTraits:
    return TRAITS.get(wish.engine, EngineTraits())


def whole_cores(machine: Machine, pus: CpuSet) -> CpuSet:
    return CpuSet(pu for core in machine.cores if core.pus & pus for pu in core.pus)


def cores_with(machine: Machine, pus: CpuSet) -> list[Core]:
    return [core for core in machine.cores if core.pus & pus]


def whole(at: Placement) -> CpuSet:
    """With what it left free for its API process."""
    return at.pus | at.reserved


def homes(cores: Iterable[Core]) -> set[int | None]:
    return {min(core.numa_nodes) if core.numa_nodes else None for core in cores}


def chosen_freely(wish: Instance) -> bool:
    return Slot.parse(wish.slot).kind == "auto"


def named_one_by_one(wish: Instance) -> bool:
    slot = Slot.parse(wish.slot)
    return slot.kind in ("core", "pu") or slot.cores is not None


def cards(machine: Machine, at: Placement) -> list[Gpu]:
    return [gpu for gpu in machine.gpus if gpu.index in at.gpus]


@settings(max_examples=EXAMPLES)
@given(machines, layouts(wishes), held, sizes)
def test_laws_of_placement(
    machine: Machine, layout: Layout, others: Held, known: Sizes | None
) -> None:
    _all_laws_hold(machine, layout, others, known)


@settings(max_examples=EXAMPLES)
@given(
    st.one_of(made_up(roomy=True), made_up(roomy=True, hybrid=True)),
    layouts(competing, least=2),
    held,
    st.sampled_from([None, GivenSizes(), GivenSizes(), GivenSizes()]),
)
def test_laws_where_many_choose_freely(
    machine: Machine, layout: Layout, others: Held, known: Sizes | None
) -> None:
    _all_laws_hold(machine, layout, others, known)


@settings(max_examples=EXAMPLES)
@given(
    st.one_of(made_up(roomy=True, cards=True), made_up(roomy=True, cards=True, hybrid=True)),
    layouts(rivals_for_cards, least=2),
    st.one_of(st.just(NO_ONE), what_runs()),
    st.just(GivenSizes()),
)
def test_laws_where_many_want_cards(
    machine: Machine, layout: Layout, others: Held, known: Sizes | None
) -> None:
    _all_laws_hold(machine, layout, others, known)


@settings(max_examples=EXAMPLES)
@given(made_up(roomy=True, cards=True), layouts(hungry, least=3), st.just(GivenSizes()))
def test_laws_where_memory_is_scarce(machine: Machine, layout: Layout, known: Sizes) -> None:
    _all_laws_hold(machine, layout, NO_ONE, known)


def _all_laws_hold(machine: Machine, layout: Layout, others: Held, known: Sizes | None) -> None:
    plan = place(machine, layout, held=others, traits=TRAITS, sizes=known)
    by_name = {wish.name: wish for wish in plan.wishes}

    _every_wish_is_answered_once(plan)
    _nothing_is_given_twice(machine, plan, others)
    _ports_are_free(plan, layout, others)
    for at in plan.placements:
        wish = by_name[at.instance]
        _the_right_pus(machine, wish, at)
        _the_right_kind(machine, wish, at)
        _inside_the_slot(machine, wish, at)
        _the_right_memory(machine, at)
        if at.gpus:
            _cards_that_fit_together(machine, wish, at, known)
        if chosen_freely(wish) and wish.strategy == "isolate":
            _alone(machine, at, plan, others)
    if known is not None:
        _memory_holds_all(machine, plan, by_name, known)
    _strangers_are_told_of(machine, plan, others)


def _every_wish_is_answered_once(plan: Plan) -> None:
    placed = [at.instance for at in plan.placements]
    assert len(placed) == len(set(placed))
    refused = {refusal.instance for refusal in plan.refusals}
    for wish in plan.wishes:
        assert wish.name in placed or wish.name in refused
    for refusal in plan.refusals:
        assert len(refusal.why) > 10
        assert len(refusal.do) > 10
    for at in plan.placements:
        assert at.reasons
        assert all(len(words) > 5 for words in (*at.reasons, *at.warnings))
        assert len(set(at.reasons)) == len(at.reasons)
        assert at.tensor_parallel == max(1, len(at.gpus))


def _nothing_is_given_twice(machine: Machine, plan: Plan, others: Held) -> None:
    taken = [whole_cores(machine, whole(at)) for at in plan.placements]
    taken += [whole_cores(machine, pus) for pus in others.pus.values()]
    every = [pu for pus in taken for pu in pus]
    assert len(every) == len(set(every)), "a core with two holders"
    gpus = [gpu for at in plan.placements for gpu in at.gpus]
    assert len(gpus) == len(set(gpus))
    assert not set(gpus) & set(others.gpus)


def _the_right_pus(machine: Machine, wish: Instance, at: Placement) -> None:
    """Usable ones; one of each core, or with `smt` all; the reserve beside or among them."""
    traits = traits_of(wish)
    assert at.pus
    assert whole(at) <= machine.pus.usable
    if traits.binds_threads:
        assert at.reserved <= at.pus
        assert at.pus - at.reserved
    else:
        assert not at.reserved & at.pus
    cores = cores_with(machine, whole(at))
    if Slot.parse(wish.slot).kind == "pu":
        assert whole(at) == Slot.parse(wish.slot).indexes
    elif wish.smt:
        assert whole(at) == CpuSet(pu for core in cores for pu in core.pus & machine.pus.usable)
    else:
        assert whole(at) == CpuSet(min(core.pus & machine.pus.usable) for core in cores)
    # An engine with a rank on each node leaves as many on each.
    parts = [cores]
    if traits.binds_threads:
        parts = [[core for core in cores if homes([core]) == {home}] for home in homes(cores)]
    for part in parts:
        asked = wish.reserve_cores
        reserve = min(traits.reserve_cores, len(part) - 1) if asked is None else asked
        left = [core for core in part if core.pus & at.reserved]
        kept = [core for core in part if core not in left]
        assert len(left) == reserve
        # The slowest are left.
        assert not left or max(map(_speed, left)) <= min(map(_speed, kept))
    if wish.cores is not None:
        assert len(cores) == wish.cores


def _speed(core: Core) -> tuple[bool, int]:
    return core.kind != "efficiency", core.highest_perf or 0


def _the_right_kind(machine: Machine, wish: Instance, at: Placement) -> None:
    """Efficiency cores where they are asked for, named, or all that there is."""
    kinds = {core.kind for core in cores_with(machine, whole(at))}
    if kinds == {None} or wish.core_kind == "any" or named_one_by_one(wish):
        return
    if wish.core_kind is not None:
        assert kinds == {wish.core_kind}
        return
    assert len(kinds) == 1
    slot = Slot.parse(wish.slot)
    if kinds == {"efficiency"} and slot.kind in ("machine", "package", "numa"):
        usable = [core for core in cores_of(slot, machine) if core.pus & machine.pus.usable]
        assert {core.kind for core in usable} == {"efficiency"}
    assert kinds == {"performance"} or slot.kind != "auto" or at.gpus


def _feeds(machine: Machine, node: int) -> int:
    """The node whose cores feed a GPU: its own, else the nearest that has some we may use."""
    within = [core for core in machine.cores if core.pus & machine.pus.usable]
    usable = {home for home in homes(within) if home is not None}
    if node in usable:
        return node
    far = {one: machine.distance(node, one) for one in usable}
    return min(usable, key=lambda one: (255 if far[one] is None else far[one], one))


def _inside_the_slot(machine: Machine, wish: Instance, at: Placement) -> None:
    cores = cores_with(machine, whole(at))
    slot = Slot.parse(wish.slot)
    if at.gpus:
        told = {gpu.numa_node for gpu in cards(machine, at)}
        if None not in told:
            assert homes(cores) <= {_feeds(machine, node or 0) for node in told}
            away = homes(cores) - told
            assert bool(away) == any("its cores come from node" in text for text in at.warnings)
    elif slot.kind == "auto":
        assert len(homes(cores)) == 1
    else:
        assert set(cores) <= set(cores_of(slot, machine))
    if wish.gpus is not None:
        assert len(at.gpus) == wish.gpus
    if slot.kind == "gpu":
        assert CpuSet(at.gpus) == slot.indexes
    near = NodeSet(node for core in cores_with(machine, at.pus) for node in core.numa_nodes)
    assert (len(near) > 1) == any("spans NUMA nodes" in words for words in at.warnings)


def _the_right_memory(machine: Machine, at: Placement) -> None:
    binding = at.memory
    if binding.policy == "local":
        assert binding.nodes == ""
        return
    nodes = NodeSet.parse(binding.nodes)
    memory = usable_memory(machine)
    near = NodeSet(n for core in cores_with(machine, at.pus) for n in core.numa_nodes)
    assert nodes
    assert nodes <= memory
    assert binding.policy != "preferred" or len(nodes) == 1
    if near & memory:
        assert nodes <= near
    else:
        assert len(nodes) == 1
        (node,) = nodes
        assert _nearness(machine, near, node) == min(_nearness(machine, near, n) for n in memory)


def _nearness(machine: Machine, origins: NodeSet, target: int) -> int:
    costs = [machine.distance(origin, target) for origin in origins]
    return min((cost for cost in costs if cost is not None), default=255)


def _cards_that_fit_together(
    machine: Machine, wish: Instance, at: Placement, known: Sizes | None
) -> None:
    assert traits_of(wish).device != "cpu"
    assert traits_of(wish).tensor_parallel or len(at.gpus) == 1
    here = cards(machine, at)
    if chosen_freely(wish):
        assert all(gpu.computes for gpu in here)
        assert len({(gpu.vendor, gpu.device, gpu.name) for gpu in here}) == 1
    if known is None:
        return
    needs = known.needs(wish, len(at.gpus))
    if len(at.gpus) > 1 and needs.splits is not None:
        assert len(at.gpus) in needs.splits
    memory = [gpu.memory_bytes for gpu in here]
    for each in memory:
        if needs.per_device_bytes is not None and each is not None and None not in memory:
            assert needs.per_device_bytes <= each * traits_of(wish).memory_share


def _alone(machine: Machine, at: Placement, plan: Plan, others: Held) -> None:
    """`isolate`: no other instance on its NUMA node, for cards none with a card there."""
    rest = [one for one in plan.placements if one.instance != at.instance]
    if at.gpus:
        nodes = {gpu.numa_node for gpu in cards(machine, at)}
        held_cards = {
            *(index for one in rest for index in one.gpus),
            *others.gpus,
            *(index for each in others.strangers for index in each.gpus),
        }
        beside = [gpu for gpu in machine.gpus if gpu.index in held_cards and gpu.computes]
        assert not any(gpu.numa_node in nodes for gpu in beside)
        return
    (home,) = homes(cores_with(machine, whole(at)))
    for one in rest:
        assert home not in homes(cores_with(machine, whole(one)))
    for pus in others.pus.values():
        usable = [core for core in cores_with(machine, pus) if core.pus & machine.pus.usable]
        assert home not in homes(usable)


def _memory_holds_all(
    machine: Machine, plan: Plan, by_name: dict[str, Instance], known: Sizes
) -> None:
    """For every set of nodes: who must live inside it fits into it."""
    size = {node.os_index: node.memory_bytes for node in machine.numa_nodes}
    told = [index for index, memory in size.items() if memory is not None]
    bound: list[tuple[NodeSet, int]] = []
    for at in plan.placements:
        wish = by_name[at.instance]
        total = known.needs(wish, 1).total_bytes
        if at.memory.policy not in ("bind", "interleave") or at.gpus or total is None:
            continue
        nodes = list(NodeSet.parse(at.memory.nodes))
        if not set(nodes) <= set(told):
            continue  # what is not known everywhere cannot be counted
        if at.memory.policy == "interleave":
            bound += [(NodeSet([node]), total // len(nodes)) for node in nodes]
        else:
            bound.append((NodeSet(nodes), total))
    for count in range(1, min(len(told), 5) + 1):
        for inside in combinations(told, count):
            needed = sum(total for nodes, total in bound if nodes <= NodeSet(inside))
            assert needed <= sum(size[node] or 0 for node in inside)


def _ports_are_free(plan: Plan, layout: Layout, others: Held) -> None:
    ports = [at.port for at in plan.placements]
    assert len(ports) == len(set(ports))
    assert not set(ports) & set(others.ports)
    by_name = {wish.name: wish for wish in plan.wishes}
    for at in plan.placements:
        named = by_name[at.instance].port
        kept = at.port == others.preferred_ports.get(at.instance)
        within = layout.ports.first <= at.port <= layout.ports.last
        assert at.port == named if named else kept or within


def _strangers_are_told_of(machine: Machine, plan: Plan, others: Held) -> None:
    for at in plan.placements:
        beside = held_pus(others.strangers) & whole_cores(machine, whole(at))
        told = [words for words in at.warnings if re.match(r"PU .* held by", words)]
        assert bool(beside) == bool(told)
        busy = {index for each in others.strangers for index in each.gpus}
        assert bool(busy & set(at.gpus)) == any("a GPU of this" in words for words in at.warnings)


def turned_round(one: Mapping[Key, Value]) -> dict[Key, Value]:
    return dict(reversed(list(one.items())))


@given(machines, layouts(wishes), held, sizes)
def test_a_plan_is_the_same_each_time_and_in_any_order_of_what_runs(
    machine: Machine, layout: Layout, others: Held, known: Sizes | None
) -> None:
    plan = place(machine, layout, held=others, traits=TRAITS, sizes=known)
    assert place(machine, layout, held=others, traits=TRAITS, sizes=known) == plan
    turned = Held(
        turned_round(others.pus),
        turned_round(others.ports),
        turned_round(others.preferred_ports),
        turned_round(others.gpus),
        others.strangers[::-1],
        turned_round(others.free_bytes),
    )
    traits = turned_round(TRAITS)
    assert place(machine, layout, held=turned, traits=traits, sizes=known) == plan


@given(machines, wishes("a"), st.integers(1, 6), held, sizes)
def test_a_free_choice_alone_is_refused_only_where_no_node_has_room(
    machine: Machine, drawn: Instance, cores: int, others: Held, known: Sizes | None
) -> None:
    wish = msgspec.structs.replace(
        drawn, slot="auto", engine="torch", count=None, gpus=None, port=None, cores=cores
    )
    layout = Layout(name="x", instances=(wish,))
    plan = place(machine, layout, held=others, sizes=known)
    free = _free_cores(machine, wish, others)
    if not any(len(some) >= cores for some in free.values()):
        assert plan.refusals
        return
    memory = usable_memory(machine)
    size = {node.os_index: node.memory_bytes for node in machine.numa_nodes}
    needed = (known.needs(wish, 1).total_bytes or 0) if known else 0
    if wish.memory in ("preferred", "local"):
        needed = 0  # what does not fit comes from other nodes

    def has_room(home: int | None) -> bool:
        if wish.strategy == "isolate" and home in _begun(machine, others):
            return False
        if len(free[home]) < cores or home is None or wish.memory == "local":
            return len(free[home]) >= cores
        left = size[home]
        return home in memory and (left is None or left >= needed)

    if (wish.reserve_cores or 0) < cores and any(has_room(home) for home in free):
        assert plan.placements, plan.refusals


def _free_cores(machine: Machine, wish: Instance, others: Held) -> dict[int | None, list[Core]]:
    """Those of the wished kind which nobody of ours holds, by NUMA node."""
    taken = CpuSet(pu for pus in others.pus.values() for pu in whole_cores(machine, pus))
    wanted = wish.core_kind or "performance"
    free: dict[int | None, list[Core]] = {}
    for core in machine.cores:
        of_kind = core.kind is None or wanted in ("any", core.kind)
        if core.pus & machine.pus.usable and not core.pus & taken and of_kind:
            (home,) = homes([core])
            free.setdefault(home, []).append(core)
    return free


def _begun(machine: Machine, others: Held) -> set[int | None]:
    """Nodes with a usable core that an instance of ours holds."""
    held_cores = [core for pus in others.pus.values() for core in cores_with(machine, pus)]
    return homes(core for core in held_cores if core.pus & machine.pus.usable)


@given(machines, st.integers(1, 6), st.sampled_from([None, "any"]))
def test_the_fastest_free_cores_of_a_node_are_taken(
    machine: Machine, cores: int, kind: str | None
) -> None:
    wish = Instance(name="a", cores=cores, core_kind=kind, memory="local")
    plan = place(machine, Layout(name="x", instances=(wish,)))
    for at in plan.placements:
        mine = cores_with(machine, at.pus)
        free = _free_cores(machine, wish, NO_ONE)
        (home,) = homes(mine)
        idle = [core for core in free[home] if core not in mine]
        for fast in mine:
            for other in idle:
                assert _speed(fast) >= _speed(other)


@given(machines, st.integers(1, 12))
def test_auto_wastes_no_core_and_shares_evenly(machine: Machine, count: int) -> None:
    layout = Layout(name="x", instances=(Instance(name="a", count=count, memory="local"),))
    plan = place(machine, layout)
    usable = [
        core
        for core in machine.cores
        if core.pus & machine.pus.usable and core.kind != "efficiency"
    ]
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


@given(made_up(roomy=True), layouts(modest), strangers)
def test_strangers_cores_are_taken_last(
    machine: Machine, layout: Layout, others: tuple[Stranger, ...]
) -> None:
    """Nobody shares a core with a stranger while enough are free, and never more than need be."""
    layout = msgspec.structs.replace(layout, ports=Ports())
    plan = place(machine, layout, held=Held({}, {}, strangers=others))
    theirs = whole_cores(machine, held_pus(others))
    by_name = {wish.name: wish for wish in plan.wishes}
    taken = CpuSet(pu for at in plan.placements for pu in whole_cores(machine, whole(at)))
    for at in plan.placements:
        if not theirs & whole(at):
            continue
        wish = by_name[at.instance]
        free = _free_cores(machine, wish, Held({"plan": taken}, {}))
        untouched = {
            home: [core for core in cores if not core.pus & theirs] for home, cores in free.items()
        }
        assert all(len(cores) < (wish.cores or 1) for cores in untouched.values())
        (home,) = homes(cores_with(machine, whole(at)))
        assert not untouched.get(home), "a core beside it would not have been shared"


@given(machines, layouts(wishes))
def test_a_shell_line_says_the_same_cpu_set(machine: Machine, layout: Layout) -> None:
    """What stands after `-C` in the line to copy is the placement's own set."""
    for at in place(machine, layout, traits=TRAITS).placements:
        command = Command(("server", "--port", str(at.port), "a b", "$x; 'y'"))
        words = shlex.split(shell_line(command, at.pus, at.memory))
        assert words[:2] == ["numactl", "-C"]
        assert CpuSet.parse(words[2]) == at.pus
        memory = {"-m": "bind", "-p": "preferred", "-i": "interleave", "-l": "local"}
        memory["-w"] = "weighted-interleave"
        assert memory[words[3]] == at.memory.policy
        rest = words[4:]
        if at.memory.policy != "local":
            assert NodeSet.parse(rest[0]) == NodeSet.parse(at.memory.nodes)
            rest = rest[1:]
        assert tuple(rest) == command.argv


indexes = st.frozensets(st.integers(0, 40), min_size=1).map(CpuSet)
every_slot = st.one_of(
    st.sampled_from(["machine", "auto"]).map(Slot),
    st.builds(Slot, st.just("machine"), st.just(CpuSet()), indexes),
    st.builds(Slot, st.sampled_from(["numa", "core", "pu", "gpu"]), indexes),
    st.builds(Slot, st.just("numa"), indexes, indexes),
    st.builds(
        Slot,
        st.just("package"),
        st.integers(0, 40).map(lambda index: CpuSet([index])),
        st.none() | indexes,
    ),
    st.builds(Slot, st.just("each"), each=st.sampled_from(["numa", "package", "gpu"])),
)


@given(every_slot)
def test_a_slot_is_read_back_as_it_was_written(slot: Slot) -> None:
    assert Slot.parse(str(slot)) == slot
    assert Slot.parse(f" {slot}\t") == slot
