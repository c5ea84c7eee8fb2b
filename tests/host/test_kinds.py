"""Kinds of memory and of cores, as each kernel and firmware tells them."""

import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from engine.core.codec import to_builtins
from engine.core.cpuset import CpuSet
from engine.core.topology import Machine
from engine.host.core_kinds import read_core_kinds, read_highest_perf
from engine.host.machine import read_machine
from engine.host.memory_kinds import read_memory_kinds
from engine.host.recorder import Recorder
from engine.host.root import HostRoot
from tests.kernel_files import ONLINE, cpu, tree
from tests.machines_by_hand import build
from tests.shared import needs, unpack

Files = dict[str, str | bytes]
NODE = "sys/devices/system/node/node"
TIER = "sys/devices/virtual/memory_tiering/memory_tier"
DAX = "sys/bus/dax/devices/dax0.0"
CXL_PATH = "sys/devices/platform/ACPI0017:00/root0/decoder0.0/region0/dax_region0/dax0.0"
NVDIMM_PATH = "sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region0/dax0.1/dax0.0"
RESERVED_PATH = "sys/devices/platform/hmem.0/dax0.0"


def bandwidth(index: int, width: int, *near: int, access: str = "access1") -> Files:
    folder = f"{NODE}{index}/{access}/initiators"
    return {
        f"{folder}/read_bandwidth": f"{width}\n",
        **{f"{folder}/node{one}/cpulist": "0\n" for one in near},
    }


def dax(root: Path, place: str, node: int) -> Files:
    (root / "sys/bus/dax/devices").mkdir(parents=True)
    (root / DAX).symlink_to(f"../../../../{place}")
    return {f"{place}/target_node": f"{node}\n"}


def kind(root: Path, files: Files, *, size: int | None = 1 << 30) -> tuple[str, str]:
    """Of node 2, which has no PUs, beside two DRAM nodes with PUs; and why it is not certain."""
    nodes = [(0, CpuSet([0]), 1 << 30), (1, CpuSet([1]), 1 << 30), (2, CpuSet(), size)]
    found, missing = read_memory_kinds(tree(root, files), nodes)
    assert {found[0].kind, found[1].kind} == {"dram"}
    assert all(row.what == "numa_nodes 2 kind" for row in missing)
    return found[2].kind, " ".join(row.why for row in missing)


def test_nothing_told_is_unknown(tmp_path: Path) -> None:
    assert kind(tmp_path, {}) == ("unknown", "memory without PUs, and nothing tells of what kind")
    assert kind(tmp_path, {}, size=0) == ("unknown", "")


def test_cxl_by_its_dax_device(tmp_path: Path) -> None:
    assert kind(tmp_path, dax(tmp_path, CXL_PATH, 2)) == ("cxl", "")


def test_cxl_by_a_region_that_firmware_made(tmp_path: Path) -> None:
    files: Files = {
        "sys/bus/cxl/devices/region0/resource": "0x4080000000\n",
        "sys/devices/system/memory/block_size_bytes": "80000000\n",
        f"{NODE}2/memory129/state": "online\n",
        f"{NODE}1/memory128/state": "online\n",
    }
    assert kind(tmp_path, files) == ("cxl", "")


def test_persistent_memory_is_told_to_be_that(tmp_path: Path) -> None:
    found, why = kind(tmp_path, dax(tmp_path, NVDIMM_PATH, 2))
    assert (found, why) == ("unknown", "persistent memory (dax0.0 on the NVDIMM bus)")


@pytest.mark.parametrize(
    ("tier", "expected"),
    [(2, "hbm"), (4, "unknown"), (22, "unknown")],
)
def test_memory_tiers(tmp_path: Path, tier: int, expected: str) -> None:
    files: Files = {f"{TIER}4/nodelist": "0-2\n" if tier == 4 else "0-1\n"}
    if tier != 4:
        files[f"{TIER}{tier}/nodelist"] = "2\n"
    found, why = kind(tmp_path, files)
    assert found == expected
    assert why


def test_a_slow_tier_on_a_machine_with_cxl_is_cxl(tmp_path: Path) -> None:
    files: Files = {
        f"{TIER}4/nodelist": "0-1\n",
        f"{TIER}22/nodelist": "2\n",
        "sys/bus/cxl/devices/mem0/serial": "x\n",
    }
    found, why = kind(tmp_path, files)
    assert found == "cxl"
    assert "memory tier 22, which is below DRAM's 4" in why


@pytest.mark.parametrize(
    ("width", "expected"), [(800_000, "hbm"), (250_000, "unknown"), (60_000, "unknown")]
)
@pytest.mark.parametrize("access", ["access0", "access1"])
def test_bandwidth_of_the_hmat(tmp_path: Path, width: int, expected: str, access: str) -> None:
    files = {
        **bandwidth(0, 200_000, 0, access=access),
        **bandwidth(1, 200_000, 1, access=access),
        **bandwidth(2, width, 1, access=access),
    }
    assert kind(tmp_path, files)[0] == expected
    nodes = [(0, CpuSet([0]), 1), (1, CpuSet([1]), 1), (2, CpuSet(), 1)]
    found, _ = read_memory_kinds(tree(tmp_path, {}), nodes)
    assert [str(found[index].initiators) for index in range(3)] == ["", "", "1"]


def test_memory_set_apart_is_of_the_kind_that_its_speed_tells(tmp_path: Path) -> None:
    files = {
        **dax(tmp_path, RESERVED_PATH, 2),
        **bandwidth(0, 200_000, 0),
        **bandwidth(1, 200_000, 1),
        **bandwidth(2, 800_000, 0),
    }
    assert kind(tmp_path, files)[0] == "hbm"


def test_a_fast_cxl_is_no_hbm(tmp_path: Path) -> None:
    files = {**dax(tmp_path, CXL_PATH, 2), **bandwidth(0, 1000, 0), **bandwidth(2, 9000, 0)}
    assert kind(tmp_path, files) == ("cxl", "")


def test_memory_of_a_gpu(tmp_path: Path) -> None:
    files: Files = {"proc/driver/nvidia/gpus/0009:01:00.0/numa_status": "Node: 2\nOnline: 1\n"}
    assert kind(tmp_path, files) == ("gpu", "")


def test_hbm_may_have_pus(tmp_path: Path) -> None:
    files = {**bandwidth(0, 1000, 0), **bandwidth(1, 10000, 1)}
    nodes = [(0, CpuSet([0]), 1 << 30), (1, CpuSet([1]), 1 << 30)]
    found, missing = read_memory_kinds(tree(tmp_path, files), nodes)
    assert [found[0].kind, found[1].kind] == ["dram", "hbm"]
    assert missing[0].why == "not told: taken from its bandwidth, 10 GB/s against 1 of the DRAM"


CPU = "sys/devices/system/cpu/cpu"


def per_core(name: str, *numbers: int | None) -> Files:
    """One PU a core."""
    return {
        f"{CPU}{pu}/{name}": f"{number}\n"
        for pu, number in enumerate(numbers)
        if number is not None
    }


@pytest.mark.parametrize(
    ("files", "expected", "guessed"),
    [
        # Intel's lists; the low-power cores of the newest are efficient, too.
        (
            {
                "sys/devices/cpu_core/cpus": "0-1\n",
                "sys/devices/cpu_atom/cpus": "2\n",
                "sys/devices/cpu_lowpower/cpus": "3\n",
            },
            *("PPEE", False),
        ),
        # One list alone, as in a guest with one kind.
        ({"sys/devices/cpu_core/cpus": "0-3\n"}, "----", False),
        # Arm: small, and two sizes of large.
        (per_core("cpu_capacity", 446, 446, 871, 1024), "EEPP", False),
        (per_core("cpu_capacity", 1024, 1024, 1024, 1024), "----", False),
        # One that does not tell: nothing can be said of any.
        (per_core("cpu_capacity", 446, None, 1024, 1024), "----", False),
        (per_core("cpu_capacity", 0, 0, 0, 0), "----", False),
        # Clocks: a guess, which favoured cores of one kind do not lead astray.
        (per_core("cpufreq/cpuinfo_max_freq", 5200000, 5000000, 3900000, 3900000), "PPEE", True),
        (per_core("cpufreq/cpuinfo_max_freq", 5800000, 5500000, 5500000, 5100000), "----", False),
    ],
)
def test_core_kinds(tmp_path: Path, files: Files, expected: str, guessed: bool) -> None:
    cores = [CpuSet([pu]) for pu in range(4)]
    kind_of, missing = read_core_kinds(tree(tmp_path, files), cores, packages=1)
    marks = {"performance": "P", "efficiency": "E", None: "-"}
    assert "".join(marks[kind_of(core)] for core in cores) == expected
    assert [row.what for row in missing] == (["cores[*].kind"] if guessed else [])


def test_clocks_of_a_server_with_two_packages_tell_no_kinds(tmp_path: Path) -> None:
    files = per_core("cpufreq/cpuinfo_max_freq", 3900000, 2000000)
    cores = [CpuSet([0]), CpuSet([1])]
    kind_of, missing = read_core_kinds(tree(tmp_path, files), cores, packages=2)
    assert (kind_of(cores[1]), missing) == (None, ())


CPPC, CLOCK = "acpi_cppc/highest_perf", "cpufreq/cpuinfo_max_freq"


@pytest.mark.parametrize(
    ("files", "kinds", "expected"),
    [
        # Intel's priority cores (PCT): a few of one kind above the rest.
        (per_core(CPPC, 46, 36, 36, 36), "----", [46, 36, 36, 36]),
        (per_core(CPPC, 36, 36, 36, 36), "----", None),
        # A kind's distance to the other is told by the kinds; what counts is within one.
        (per_core(CPPC, 64, 64, 39, 39), "PPEE", None),
        (per_core(CPPC, 67, 64, 39, 39), "PPEE", [67, 64, 39, 39]),
        # The clocks only where firmware ranks nothing: the two are never mixed.
        (
            per_core(CLOCK, 5200000, 5000000, 5000000, 5000000),
            "----",
            [5200000, 5000000, 5000000, 5000000],
        ),
        ({**per_core(CPPC, 36, 36, 36, 36), **per_core(CLOCK, 4, 3, 3, 3)}, "----", None),
        (
            {**per_core(CPPC, 46, None, 36, 36), **per_core(CLOCK, 4, 3, 3, 3)},
            "----",
            [4, 3, 3, 3],
        ),
        (per_core(CPPC, 46, None, 36, 36), "----", None),
        (per_core(CPPC, 46, 0, 36, 36), "----", None),
        ({}, "----", None),
    ],
)
def test_how_fast_each_core_may_run(
    tmp_path: Path, files: Files, kinds: str, expected: list[int] | None
) -> None:
    cores = [CpuSet([pu]) for pu in range(4)]
    kind_of = {
        core: None if kind == "-" else kind for core, kind in zip(cores, kinds, strict=True)
    }
    rank_of = read_highest_perf(tree(tmp_path, files), cores, lambda pus: kind_of[pus])
    assert [rank_of(core) for core in cores] == list(expected or (None,) * 4)


def ranked(*ranks: int | None, kinds: str = "") -> Machine:
    machine = build([len(ranks)])
    words = {"P": "performance", "E": "efficiency"}
    return replace(
        machine,
        cores=tuple(
            replace(core, highest_perf=rank, kind=words.get(kinds[index : index + 1]))
            for index, (core, rank) in enumerate(zip(machine.cores, ranks, strict=True))
        ),
    )


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (ranked(46, 46, 36, 36, 36, 36), "0-1"),
        (ranked(36, 46, 36, 36), "1"),
        # Every core its own number (AMD's preferred cores): the better half.
        (ranked(231, 226, 221, 216, 211, 206), "0-2"),
        # Most are fast: the slow ones are not.
        (ranked(46, 46, 46, 36), "0-2"),
        (ranked(67, 64, 64, 39, 39, kinds="PPPEE"), "0"),
        (ranked(64, 64, 39, 41, 39, kinds="PPEEE"), "3"),
        (ranked(None, None), ""),
    ],
)
def test_priority_cores(machine: Machine, expected: str) -> None:
    found = CpuSet(pu for core in machine.priority_cores for pu in core.pus)
    assert str(found) == expected


def test_the_ranking_of_cores_makes_no_other_machine() -> None:
    assert ranked(46, 36).revision == ranked(36, 46).revision == ranked(None, None).revision


def test_priority_cores_of_a_server_are_read_recorded_and_told(tmp_path: Path) -> None:
    """As a 6776P: two cores of every sixteen, and their SMT siblings in the kernel's order."""
    files: Files = {ONLINE: "0-127\n"}
    for pu in range(128):
        files |= cpu(pu, f"{pu % 64},{pu % 64 + 64}", core=str(pu % 64))
        files[f"{CPU}{pu}/{CPPC}"] = "46\n" if pu % 16 < 2 else "36\n"
    recorder = Recorder(tree(tmp_path, files).path)
    machine = read_machine(recorder)
    fast = CpuSet(pu for core in machine.priority_cores for pu in core.pus)
    assert str(fast) == "0-1,16-17,32-33,48-49,64-65,80-81,96-97,112-113"
    assert {name for name in recorder.kept if name.endswith(CPPC)} == {
        f"{CPU}{pu}/{CPPC}" for pu in range(64)
    }
    told = to_builtins(machine)["cores"]
    assert [core["highest_perf"] for core in told[:3]] == [46, 46, 36]


def test_a_recorded_hybrid_machine_has_favoured_cores_of_its_fast_kind(tmp_path: Path) -> None:
    packed = needs("machines/trees/20em64t-hybrid-1p6c2t+2ca4co1t.tar.bz2")
    with tarfile.open(packed) as archive:
        unpack(archive, tmp_path)
    (top,) = tmp_path.iterdir()
    machine = read_machine(HostRoot(top))
    assert {(core.kind, core.highest_perf) for core in machine.cores} == {
        ("performance", 64),
        ("performance", 67),
        ("efficiency", 39),
    }
    assert [str(core.pus) for core in machine.priority_cores] == ["4-5", "8-9"]
