"""Any machine, written as the kernel would show it, reads back as it was."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.topology import Core, Machine, NumaNode, Package, Pus
from engine.host.machine import read_machine
from tests.machines_by_hand import MACHINES
from tests.sysfs_tree import write_machine


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """Uneven and sparse nodes, PUs numbered at random, some offline, some not ours."""
    sizes = draw(st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(any))
    smt = draw(st.integers(1, 4))
    numbers = draw(st.permutations(range(sum(sizes) * smt)))
    gone = draw(st.sets(st.sampled_from(numbers), max_size=len(numbers) - 1))
    node_numbers = sorted(
        draw(st.sets(st.integers(0, 40), min_size=len(sizes), max_size=len(sizes)))
    )
    package_of = [draw(st.integers(0, 2)) * 7 for _ in sizes]
    online, offline = CpuSet(numbers) - CpuSet(gone), CpuSet(gone)
    cores: list[Core] = []
    nodes: list[NumaNode] = []
    left = list(numbers)
    for index, package, count in zip(node_numbers, package_of, sizes, strict=True):
        mine: list[Core] = []
        for core in range(count):
            siblings = CpuSet(left.pop() for _ in range(smt)) & online
            if siblings:
                # The same numbers again in every node of a package, as in its dies.
                mine.append(Core(package, core, NodeSet([index]), siblings))
        cores += mine
        memory = draw(st.integers(0, 1 << 20)) << 10
        pus = CpuSet(pu for core in mine for pu in core.pus)
        nodes.append(
            NumaNode(
                index,
                pus,
                memory,
                (package,) if mine else (),
                "dram" if mine and memory else "unknown",
            )
        )
    cores.sort(key=lambda core: (core.package or 0, min(core.pus)))
    costs = st.lists(st.integers(10, 255), min_size=len(sizes), max_size=len(sizes))
    rows = [draw(costs) for _ in sizes]
    for place, row in enumerate(rows):
        row[place] = 10
    return Machine(
        packages=tuple(
            Package(
                package,
                NodeSet(
                    node for core in cores if core.package == package for node in core.numa_nodes
                ),
                sum(1 for core in cores if core.package == package),
            )
            for package in sorted({core.package for core in cores if core.package is not None})
        ),
        numa_nodes=tuple(nodes),
        cores=tuple(cores),
        pus=Pus(online, offline, online & CpuSet(draw(st.sets(st.sampled_from(numbers))))),
        usable_nodes=NodeSet(draw(st.sets(st.sampled_from(node_numbers)))),
        distances=tuple(map(tuple, rows)),
        gpus=(),
        missing=(),
        live=False,
    )


@given(machines())
def test_any_machine(machine: Machine) -> None:
    with TemporaryDirectory() as folder:
        read = read_machine(write_machine(machine, Path(folder)))
    told = {row.what for row in read.missing}
    assert replace(read, missing=()) == machine
    # Only what a tree of sysfs cannot tell of memory without PUs.
    kinds = {f"numa_nodes {node.os_index} kind" for node in machine.numa_nodes}
    assert told <= kinds | {"gpus"}


@pytest.mark.parametrize("name", sorted(MACHINES))
def test_machines_by_hand(name: str, tmp_path: Path) -> None:
    machine = MACHINES[name]
    read = read_machine(write_machine(machine, tmp_path))
    assert read.packages == machine.packages
    assert read.cores == machine.cores
    assert [(node.cpus, node.memory_bytes) for node in read.numa_nodes] == [
        (node.cpus, node.memory_bytes) for node in machine.numa_nodes
    ]
    assert (read.pus, read.usable_nodes) == (machine.pus, machine.usable_nodes)
    assert read.distances == machine.distances
    assert [gpu.pci for gpu in read.gpus] == [gpu.pci for gpu in machine.gpus]
    assert [gpu.numa_node for gpu in read.gpus] == [gpu.numa_node for gpu in machine.gpus]
