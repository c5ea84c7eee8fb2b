"""Made-up machines: the counts, the numbering, the words for a mistake, and the way back."""

import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.errors import UsageError
from engine.core.synthetic import parse_synthetic
from engine.core.topology import Machine
from engine.host.machine import read_machine
from tests.sysfs_tree import write_machine

GIB = 1 << 30


def test_every_count_is_per_parent() -> None:
    machine = parse_synthetic("pack:2 numa:2 core:8 pu:2 gpu:2*24GiB mem:64GiB")
    assert [package.cores for package in machine.packages] == [16, 16]
    assert [package.numa_nodes for package in machine.packages] == [
        NodeSet([0, 1]),
        NodeSet([2, 3]),
    ]
    assert [node.memory_bytes for node in machine.numa_nodes] == [64 * GIB] * 4
    assert len(machine.cores) == 32
    assert machine.pus.online == machine.pus.usable == CpuSet(range(64))
    assert [gpu.numa_node for gpu in machine.gpus] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [gpu.index for gpu in machine.gpus] == list(range(8))
    assert {gpu.memory_bytes for gpu in machine.gpus} == {24 * GIB}
    assert len({gpu.pci for gpu in machine.gpus}) == 8
    assert not machine.live


def test_first_siblings_come_first_through_all_packages() -> None:
    machine = parse_synthetic("pack:2 core:4 pu:2")
    assert [str(core.pus) for core in machine.cores] == [
        *("0,8", "1,9", "2,10", "3,11"),
        *("4,12", "5,13", "6,14", "7,15"),
    ]
    assert [(core.package, core.core_id) for core in machine.cores[3:5]] == [(0, 3), (1, 0)]
    assert str(machine.numa_nodes[1].cpus) == "4-7,12-15"


def test_distances_are_10_in_a_node_12_in_a_package_20_between_packages() -> None:
    machine = parse_synthetic("pack:2 numa:2")
    assert machine.distances == (
        (10, 12, 20, 20),
        (12, 10, 20, 20),
        (20, 20, 10, 12),
        (20, 20, 12, 10),
    )


def test_what_is_left_out_is_one_and_sizes_are_unknown_not_zero() -> None:
    machine = parse_synthetic("gpu:1")
    assert len(machine.cores) == len(machine.numa_nodes) == len(machine.packages) == 1
    assert machine.numa_nodes[0].memory_bytes is None
    assert machine.gpus[0].memory_bytes is None
    whats = {missing.what for missing in machine.missing}
    assert {"numa_nodes[*].memory_bytes", "gpus[*].memory_bytes", "gpus[*].driver"} <= whats


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64GiB", 64 * GIB),
        ("1.5TiB", 3 << 39),
        ("512MiB", 1 << 29),
        ("64GB", 64 * 10**9),
        ("0GiB", 0),
    ],
)
def test_sizes_have_a_unit(text: str, size: int) -> None:
    assert parse_synthetic(f"mem:{text}").numa_nodes[0].memory_bytes == size


def test_the_largest_machine_of_linux_is_quick() -> None:
    machine = parse_synthetic("pack:8 numa:4 core:128 pu:2 mem:1TiB")
    assert len(machine.pus.online) == 8192


@pytest.mark.parametrize(
    ("spec", "character", "says"),
    [
        ("", 1, "empty"),
        ("  \t", 1, "empty"),
        ("pack:2 nodes:2", 8, "Did you mean 'numa'?"),
        ("package:2", 1, "Did you mean 'pack'?"),
        ("pack:2 cores:2", 8, "Did you mean 'core'?"),
        ("PU:2", 1, "Did you mean 'pu'?"),
        ("memory:2GiB", 1, "Did you mean 'mem'?"),
        ("zzz:2", 1, "Write it as"),
        ("pack", 5, "value is missing"),
        ("pack:", 6, "value is missing"),
        ("pack:0", 6, "not from 1"),
        ("pack:-1", 6, "not a number"),
        ("pack:1_0", 6, "not a number"),
        ("pack:２", 6, "not a number"),
        ("pack:2,3", 6, "not a number"),
        ("pack:2 pack:2", 8, "second time"),
        ("core:2 numa:2", 8, "belongs before 'core'"),
        ("core:4096 pu:3", 1, "12288 PUs are more than the 8192"),
        ("pack:1025", 1, "more than the 1024"),
        ("gpu:256", 5, "not from 0 to 255"),
        ("gpu:1*", 7, "not a size"),
        ("gpu:1*24", 9, "Did you mean '24GiB'?"),
        ("mem:64", 7, "unit is missing"),
        ("mem:64gib", 7, "Did you mean '64GiB'?"),
        ("mem:64G", 7, "Did you mean '64GiB'?"),
        ("mem:9999999999TiB", 5, "more than any machine has"),
        ("mem:-1GiB", 5, "not a size"),
    ],
)
def test_a_mistake_points_at_the_character(spec: str, character: int, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_synthetic(spec)
    assert f"at character {character}" in caught.value.what
    assert says in str(caught.value)


@given(
    st.text(max_size=60) | st.from_regex(r"(pack|numa|core|pu|gpu|mem)?:?[0-9a-zA-Z*. :]{0,20}")
)
def test_any_text_is_a_machine_or_a_usage_error(spec: str) -> None:
    try:
        machine = parse_synthetic(spec)
    except UsageError as error:
        place = re.search(r"at character (\d+)$", error.what)
        assert place is not None
        assert 1 <= int(place.group(1)) <= len(spec) + 1
    else:
        assert isinstance(machine, Machine)


@given(
    packs=st.integers(1, 3),
    numas=st.integers(1, 3),
    cores=st.integers(1, 4),
    pus=st.integers(1, 3),
    mebibytes=st.none() | st.integers(1, 1 << 20),
)
def test_written_as_a_tree_and_read_back_it_is_the_same_machine(
    packs: int, numas: int, cores: int, pus: int, mebibytes: int | None
) -> None:
    size = f" mem:{mebibytes}MiB" if mebibytes else ""
    made = parse_synthetic(f"pack:{packs} numa:{numas} core:{cores} pu:{pus}{size}")
    with TemporaryDirectory() as folder:
        read = read_machine(write_machine(made, Path(folder)))
    # A tree without GPUs tells so, and nodes without memory miss their meminfo.
    assert replace(read, live=False, missing=()) == replace(made, missing=())
