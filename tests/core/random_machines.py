"""Hypothesis strategies for machines, layouts and what runs beside them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from hypothesis import strategies as st

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.layout import Instance, Layout, Ports
from engine.core.placing.engine_traits import EngineTraits
from engine.core.placing.held import Held
from engine.core.sizing import Needs
from engine.core.strangers import Stranger
from engine.core.topology import Core, Gpu, Machine, NumaNode, Package, Pus
from tests.machines_by_hand import GIB, MACHINES, build, gpu

MEMORY = (None, 0, 4 * GIB, 4 * GIB, 16 * GIB, 16 * GIB, 64 * GIB)


@st.composite
def made_up(
    draw: st.DrawFn, *, roomy: bool = False, hybrid: bool = False, cards: bool = False
) -> Machine:
    """Odd in all ways at once: numbering, offline PUs, cpusets, kinds, ranks, memory, GPUs.

    With room for several instances, with two kinds of cores, with cards, for certain.
    """
    odd = st.integers(0, 7 if roomy else 1).map(lambda drawn: drawn == 1)
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    if roomy:
        sizes = draw(st.lists(st.integers(3, 6), min_size=2, max_size=3))
    smt = draw(st.sampled_from([1, 2, 2, 3]))
    base = build(sizes, nodes_per_package=draw(st.sampled_from([1, 2])), smt=smt)
    renumbered = _numbered(base, draw(st.permutations(range(sum(sizes) * smt))))
    machine = draw(st.sampled_from([base, renumbered]))
    if draw(odd):
        every = list(machine.pus.online)
        machine = without_pus(machine, draw(st.frozensets(st.sampled_from(every), max_size=4)))
    if not machine.cores:
        machine = base
    if hybrid or draw(st.booleans()):
        machine = replace(machine, cores=_of_kinds(draw, machine.cores, hybrid=hybrid))
    machine = _with_memory(draw, machine)
    if draw(st.integers(0, 11)) == 11:
        machine = _without_nodes(machine)
    if cards:
        told = [node.os_index for node in machine.numa_nodes if node.cpus]
        near = st.sampled_from(told) if told else st.none()
        on = draw(st.lists(near, min_size=2, max_size=6))
        machine = replace(machine, gpus=tuple(gpu(at, node) for at, node in enumerate(on)))
    else:
        machine = replace(machine, gpus=tuple(draw(_gpus(machine))))
    if draw(odd):
        online = list(machine.pus.online)
        usable = CpuSet(draw(st.frozensets(st.sampled_from(online))))
        nodes = [node.os_index for node in machine.numa_nodes]
        allowed = draw(st.frozensets(st.sampled_from(nodes))) if nodes else ()
        pus = replace(machine.pus, usable=usable)
        machine = replace(machine, pus=pus, usable_nodes=NodeSet(allowed))
    if draw(st.integers(0, 3)) == 0:
        machine = replace(machine, distances=None)
    return machine


def _numbered(machine: Machine, numbers: Sequence[int]) -> Machine:
    """With these PU numbers: siblings in no order that one could guess."""

    def renamed(pus: CpuSet) -> CpuSet:
        return CpuSet(numbers[pu] for pu in pus)

    return _in_order(
        replace(
            machine,
            cores=tuple(replace(core, pus=renamed(core.pus)) for core in machine.cores),
            numa_nodes=tuple(replace(n, cpus=renamed(n.cpus)) for n in machine.numa_nodes),
        )
    )


def _in_order(machine: Machine) -> Machine:
    cores = sorted(machine.cores, key=lambda core: (core.package or 0, min(core.pus)))
    return replace(machine, cores=tuple(cores))


def without_pus(machine: Machine, gone: Sequence[int] | frozenset[int]) -> Machine:
    """With these PUs offline."""
    offline = CpuSet(gone)
    online = machine.pus.online - offline
    return _in_order(
        replace(
            machine,
            cores=tuple(
                replace(core, pus=core.pus - offline)
                for core in machine.cores
                if core.pus - offline
            ),
            numa_nodes=tuple(replace(n, cpus=n.cpus - offline) for n in machine.numa_nodes),
            pus=Pus(online, offline, online),
        )
    )


def _of_kinds(draw: st.DrawFn, cores: Sequence[Core], *, hybrid: bool) -> tuple[Core, ...]:
    ranks = st.sampled_from(draw(st.sampled_from([(None,), (30, 46), (30, 30, 46, 60)])))
    both = ("performance", "efficiency")
    kinds = st.sampled_from(both if hybrid else draw(st.sampled_from([(None,), both])))
    drawn = [draw(kinds) for _ in cores]
    if len(set(drawn)) == 1:
        drawn = [None for _ in cores]  # a machine with one kind of core names none
    return tuple(
        replace(core, kind=kind, highest_perf=draw(ranks))
        for core, kind in zip(cores, drawn, strict=True)
    )


def _with_memory(draw: st.DrawFn, machine: Machine) -> Machine:
    nodes = [replace(n, memory_bytes=draw(st.sampled_from(MEMORY))) for n in machine.numa_nodes]
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        kind = draw(st.sampled_from(["cxl", "hbm", "gpu"]))
        size = draw(st.sampled_from(MEMORY))
        nodes.append(NumaNode(len(nodes), CpuSet(), size, (), kind))
    distance = st.sampled_from([12, 14, 21, 30])
    matrix = tuple(
        tuple(10 if a == b else draw(distance) for b in range(len(nodes)))
        for a in range(len(nodes))
    )
    return replace(
        machine,
        numa_nodes=tuple(nodes),
        usable_nodes=NodeSet(range(len(nodes))),
        distances=matrix,
    )


def _without_nodes(machine: Machine) -> Machine:
    packages: tuple[Package, ...] = tuple(
        replace(package, numa_nodes=NodeSet()) for package in machine.packages
    )
    return replace(
        machine,
        packages=packages,
        cores=tuple(replace(core, numa_nodes=NodeSet()) for core in machine.cores),
        numa_nodes=(),
        usable_nodes=NodeSet(),
        distances=None,
    )


@st.composite
def _gpus(draw: st.DrawFn, machine: Machine) -> list[Gpu]:
    nodes = [None, *(node.os_index for node in machine.numa_nodes)]
    bridges = st.lists(st.sampled_from(["r0", "r1", "s0", "s1"]), max_size=3, unique=True)
    cards = []
    for index in range(draw(st.sampled_from([0, 0, 1, 2, 3, 5]))):
        card = gpu(index, draw(st.sampled_from(nodes)))
        path = draw(bridges)
        cards.append(
            replace(
                card,
                memory_bytes=draw(st.sampled_from([None, 8 * GIB, 16 * GIB])),
                device=draw(st.sampled_from(["56a0", "56a0", "e211"])),
                vendor=draw(st.sampled_from(["8086", "8086", "8086", "10de", None])),
                integrated=draw(st.sampled_from([None, False, False, True])),
                pci_path=(*path, card.pci) if path else (),
            )
        )
    return cards


machines = st.one_of(st.sampled_from(sorted(MACHINES)).map(MACHINES.__getitem__), made_up())


# Layouts

TRAITS = {
    "reserving": EngineTraits(reserve_cores=1),
    "binding": EngineTraits(device="cpu", reserve_cores=1, binds_threads=True),
    "cards": EngineTraits(device="gpu", memory_share=0.9),
    "card": EngineTraits(device="gpu", tensor_parallel=False),
    "cpu": EngineTraits(device="cpu"),
}

slots = st.sampled_from(
    [
        *("auto",) * 6,
        *("each numa", "each package", "each gpu", "machine", "numa:0", "numa:1", "numa:0-1"),
        *("package:0", "package:1", "core:0", "core:1-2", "pu:0", "pu:1", "pu:0,8", "pu:2-3"),
        *("gpu:0", "gpu:1", "gpu:0-1", "gpu:3", "gpu:4", "gpu:0,2", "numa:0/core:0-1"),
        *("package:0/core:1", "numa:1/core:2-3", "numa:2", "machine/core:0-3", "numa:9"),
    ]
)
models = st.sampled_from(["", "", "1", "3", "6", "12", "20", "100"])
"""For `GivenSizes`: GiB."""


@st.composite
def wishes(draw: st.DrawFn, name: str) -> Instance:
    """Any keys that a layout file may hold together."""
    slot = draw(slots)
    auto, free = slot == "auto", slot == "auto" or slot.startswith("each")
    takes_cores = auto or slot.startswith("gpu")
    cores = draw(st.none() | st.integers(1, 6)) if takes_cores else None
    gpus = draw(st.sampled_from([None, None, None, 1, 2, 3])) if auto else None
    count: int | str | None = draw(st.none() | st.integers(1, 5)) if free else None
    if auto and (cores or gpus):
        count = draw(st.sampled_from([count, count, "fill"]))
    return Instance(
        name=name,
        slot=slot,
        engine=draw(st.sampled_from(["torch", "torch", *TRAITS])),
        model=draw(models),
        count=count,
        cores=cores,
        gpus=gpus,
        strategy=draw(st.sampled_from(["spread", "spread", "pack", "isolate"])),
        core_kind=draw(st.sampled_from([None, None, "performance", "efficiency", "any"])),
        smt=draw(st.booleans()),
        port=draw(st.none() | st.sampled_from([8001, 8002, 9500, 65535])),
        memory=draw(
            st.sampled_from(
                ["bind", "bind", "preferred", "interleave", "weighted-interleave", "local"]
            )
        ),
        reserve_cores=draw(st.none() | st.integers(0, 3)),
    )


@st.composite
def competing(draw: st.DrawFn, name: str, *, cards: bool = False) -> Instance:
    """Few other keys than those of a choice: most of these get a place, so that they meet."""
    sizes: list[dict[str, Any]] = [{}, {"cores": 1}, {"cores": 2}, {"cores": 4}, {"gpus": 1}]
    if cards:
        sizes = [{"gpus": 1}, {"gpus": 2}, {"cores": 2}, {"slot": "gpu:0"}, {"slot": "gpu:1,2"}]
        sizes += [{"slot": "gpu:1", "cores": 2}, {"gpus": 1, "cores": 2}]
    large = draw(st.sampled_from(sizes))
    fits = bool(large) and "slot" not in large
    return Instance(
        name=name,
        count=draw(st.sampled_from([None, None, 2, "fill"])) if fits else None,
        model=draw(st.sampled_from(["", "", "3", "12"])),
        strategy=draw(st.sampled_from(["spread", "pack", "isolate"])),
        core_kind=draw(st.sampled_from([None, None, "efficiency", "any"])),
        reserve_cores=draw(st.sampled_from([None, None, None, None, None, 1])),
        **large,
    )


@st.composite
def layouts(
    draw: st.DrawFn, one: Callable[[str], st.SearchStrategy[Instance]], *, least: int = 1
) -> Layout:
    names = draw(st.lists(st.sampled_from("abcdef"), min_size=least, max_size=6, unique=True))
    first = draw(st.sampled_from([8001, 8001, 8999]))
    last = first + draw(st.sampled_from([2, 998, 998]))
    instances = tuple(draw(one(name)) for name in names)
    return Layout(name="drawn", instances=instances, ports=Ports(first=first, last=last))


@st.composite
def modest(draw: st.DrawFn, name: str) -> Instance:
    """A free choice that nothing but cores can refuse."""
    return Instance(
        name=name,
        cores=draw(st.sampled_from([None, 1, 2, 4])),
        strategy=draw(st.sampled_from(["spread", "pack"])),
        memory="local",
    )


@st.composite
def hungry(draw: st.DrawFn, name: str) -> Instance:
    """A large model on a place that is named, so that memory alone may refuse it."""
    places = [f"core:{at}" for at in range(6)]
    places += ["numa:0", "numa:0-1", "core:0-1", "gpu:0", "gpu:0-1", "auto", "auto"]
    slot = draw(st.sampled_from(places))
    return Instance(
        name=name,
        slot=slot,
        model=draw(st.sampled_from(["3", "6", "12", "20"])),
        cores=1 if slot == "auto" else None,
        memory=draw(st.sampled_from(["bind", "bind", "interleave", "preferred"])),
    )


rivals_for_cards = partial(competing, cards=True)


# What runs beside them


def stranger(number: int, pus: frozenset[int], gpus: frozenset[int]) -> Stranger:
    return Stranger(
        *(100 + number, "python3", 1000, "alice", CpuSet(pus), None, tuple(sorted(gpus))),
        *(4, GIB, 9.0),
    )


strangers = st.lists(
    st.tuples(
        st.frozensets(st.integers(0, 16), min_size=1, max_size=6),
        st.frozensets(st.integers(0, 4), max_size=2),
    ),
    min_size=1,
    max_size=2,
).map(lambda drawn: tuple(stranger(at, *one) for at, one in enumerate(drawn)))


@st.composite
def what_runs(draw: st.DrawFn) -> Held:
    """Instances of ours and strangers."""
    some_pus = st.frozensets(st.integers(0, 30), max_size=5)
    some_gpus = st.frozensets(st.integers(0, 4), max_size=2)
    pus = draw(some_pus)
    others = draw(st.lists(st.tuples(some_pus, some_gpus), max_size=3))
    ports = draw(st.frozensets(st.sampled_from([8001, 8003, 8004, 9500]), max_size=3))
    return Held(
        {"other": CpuSet(pus)} if pus else {},
        dict.fromkeys(sorted(ports), "other"),
        draw(st.dictionaries(st.sampled_from("abcdef"), st.integers(8002, 8006), max_size=3)),
        dict.fromkeys(sorted(draw(some_gpus)), "other"),
        tuple(stranger(at, *one) for at, one in enumerate(others) if any(one)),
        draw(st.dictionaries(st.integers(0, 3), st.integers(0, 64 * GIB), max_size=2)),
    )


held = st.one_of(st.just(Held({}, {})), what_runs())


@dataclass(frozen=True)
class GivenSizes:
    """A model named "12" has 12 GiB of weights; those of 6 and more split over 2 cards only."""

    def needs(self, wish: Instance, tensor_parallel: int) -> Needs:
        if not wish.model:
            return Needs()
        total = int(wish.model) * GIB
        return Needs(
            weights_bytes=total,
            total_bytes=total,
            per_device_bytes=total // tensor_parallel,
            tensor_parallel=tensor_parallel,
            splits=(1, 2) if total >= 6 * GIB else (1, 2, 3),
        )

    def would_fit(
        self, wish: Instance, tensor_parallel: int, available_bytes: int, devices: int
    ) -> tuple[str, ...]:
        return (f"{available_bytes} bytes on {devices}",)


sizes = st.sampled_from([None, GivenSizes(), GivenSizes()])
