"""Kinds of memory and of cores, as each kernel and firmware tells them."""

from pathlib import Path

import pytest

from engine.core.cpuset import CpuSet
from engine.host.core_kinds import read_core_kinds
from engine.host.memory_kinds import read_memory_kinds
from tests.kernel_files import tree

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
