"""`[expect]` tells a machine's shape compactly, and reads back as that shape."""

import tomllib
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.cpuset import CpuSet
from engine.core.errors import LayoutError
from engine.core.likeness.fingerprint import Expect, fingerprint, shape_expected
from engine.core.likeness.shape import CoreShape, Shape, gib, shape_of
from engine.core.synthetic import parse_synthetic
from engine.core.topology import Core, Machine
from tests.machines_by_hand import GIB, MACHINES, build, server, with_gpus


def rows(expect: Expect) -> int:
    return sum(len(part or ()) for part in (expect.memory, expect.cores, expect.cards))


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_a_fingerprint_reads_back_as_the_machine_s_shape(machine: Machine) -> None:
    expect = fingerprint(machine)
    assert shape_expected(expect) == shape_of(machine)
    assert msgspec.convert(msgspec.to_builtins(expect), Expect) == expect


def test_the_three_keys_stand_for_themselves() -> None:
    expect = fingerprint(with_gpus())
    assert (expect.packages, expect.numa_nodes) == (2, 2)
    assert expect.gpus == ["Arc A770"] * 5
    assert shape_expected(Expect(packages=2, numa_nodes=2, gpus=["Arc A770"])) is None


def test_like_things_share_a_row() -> None:
    expect = fingerprint(server())
    assert [(row.numa, row.gib) for row in expect.memory or ()] == [("0-3", 64)]
    first = (expect.cores or [])[0]
    assert (first.core, first.package, first.numa) == ("0-7", 0, "0")
    assert (first.pu, first.siblings) == ("0-7,32-39", "far")


def test_siblings_beside_each_other() -> None:
    base = build([2, 2])
    cores = tuple(
        replace(core, pus=CpuSet([2 * index, 2 * index + 1]))
        for index, core in enumerate(base.cores)
    )
    expect = fingerprint(replace(base, cores=cores))
    assert [(row.pu, row.siblings) for row in expect.cores or ()] == [
        ("0-3", "adjacent"),
        ("4-7", "adjacent"),
    ]


def test_kinds_of_cores_have_rows_of_their_own() -> None:
    cores = (
        *(Core(0, n, CpuSet([0]), CpuSet([2 * n, 2 * n + 1]), "performance") for n in range(4)),
        *(Core(0, 4 + n, CpuSet([0]), CpuSet([8 + n]), "efficiency") for n in range(8)),
    )
    expect = fingerprint(replace(build([12]), cores=cores))
    assert [(row.core, row.kind, row.pu, row.siblings) for row in expect.cores or ()] == [
        ("0-3", "performance", "0-7", "adjacent"),
        ("4-11", "efficiency", "8-15", None),
    ]


def test_an_odd_pairing_is_told_core_by_core() -> None:
    pus = (CpuSet([0, 5]), CpuSet([1]), CpuSet([2, 4]))
    cores = tuple(replace(core, pus=one) for core, one in zip(build([3]).cores, pus, strict=True))
    expect = fingerprint(replace(build([3]), cores=cores))
    assert [(row.pu, row.siblings) for row in expect.cores or ()] == [("0,5 1 2,4", None)]


def test_eight_packages_with_a_card_each_stay_under_twenty_lines() -> None:
    machine = parse_synthetic("pack:8 core:32 pu:2 gpu:1*16GiB mem:256GiB")
    assert rows(fingerprint(machine)) <= 17


def test_no_serial_number_no_address() -> None:
    text = repr(fingerprint(with_gpus()))
    assert "0000:" not in text
    assert "renderD" not in text


def test_a_gpu_without_a_name_is_told_by_its_ids() -> None:
    card = replace(with_gpus().gpus[0], name=None, device="ffff")
    assert fingerprint(replace(with_gpus(), gpus=(card,))).gpus == ["8086:ffff"]


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (None, None),
        (0, 0),
        (1, 0.1),
        (GIB // 2, 0.5),
        (63 * GIB + 1000, 63),
        (GIB * 629 // 10, 63),
    ],
)
def test_memory_is_told_coarsely(size: int | None, told: float | None) -> None:
    assert gib(size) == told


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ('{ core = "0-1", pu = "0-2", siblings = "far" }', "do not make the cores"),
        ('{ core = "0-1", pu = "0-3" }', "do not make the cores"),
        ('{ core = "1-2", pu = "0-1" }', "count up from 0"),
        ('{ core = "0-1", pu = "0,1 1" }', "in two cores"),
        ('{ core = "0", pu = "0" }, { core = "0", pu = "1" }', "two rows"),
        ('{ core = "3-1", pu = "0" }', "backwards"),
        ('{ core = "", pu = "" }', "is empty"),
        ('{ core = "0", pu = "" }', "do not make the cores"),
        ('{ core = "0", pu = "x" }', "'x' is not an index"),
    ],
)
def test_rows_that_contradict_each_other_are_a_mistake_of_the_file(row: str, why: str) -> None:
    expect = msgspec.convert(tomllib.loads(f"gpus = []\ncores = [{row}]"), Expect)
    with pytest.raises(LayoutError, match=why):
        shape_expected(expect)


def test_names_without_cards_are_a_mistake_of_the_file() -> None:
    with pytest.raises(LayoutError, match="gpus has 1 names"):
        shape_expected(Expect(gpus=["Arc A770"], cores=[]))


@st.composite
def odd_cores(draw: st.DrawFn) -> tuple[CoreShape, ...]:
    """Cores of any PUs, packages, nodes and kinds."""
    numbers = draw(st.permutations(range(12)))
    cores, at = [], 0
    for _ in range(draw(st.integers(1, 5))):
        size = draw(st.integers(1, 3))
        pus, at = CpuSet(numbers[at : at + size]), at + size
        if not pus:
            break
        package = draw(st.none() | st.integers(0, 1))
        nodes = CpuSet(draw(st.sets(st.integers(0, 2), max_size=2)))
        kind = draw(st.none() | st.sampled_from(["performance", "efficiency"]))
        cores.append(CoreShape(package, nodes, kind, pus))
    return tuple(cores)


@given(odd_cores())
def test_any_cores_read_back(cores: tuple[CoreShape, ...]) -> None:
    base = build([1])
    machine = replace(
        base,
        cores=tuple(Core(core.package, None, core.nodes, core.pus, core.kind) for core in cores),
    )
    found = shape_expected(fingerprint(machine))
    assert isinstance(found, Shape)
    assert found.cores == cores
