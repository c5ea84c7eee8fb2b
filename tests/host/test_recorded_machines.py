"""Machines recorded by hwloc's users, read object by object as hwloc reads them."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.core.cpuset import CpuSet
from engine.core.topology import Machine
from engine.doctor.host import Host
from engine.host.archive import open_root
from engine.host.machine import read_machine
from engine.host.root import HostRoot
from tests.doctor.sound import sound
from tests.recorded import NAMES, unpacked
from tests.shared import needs

# Where we read otherwise than hwloc on purpose, and why.
CORES_DIFFER = {
    "64amd64-4s2n4ca2co": "AMD family 15h: the kernel calls the two cores of a module siblings",
}
PACKAGES_DIFFER = {
    "40intel64-4n10c+pci-conflicts": "hwloc's reading lacks package 3, which the kernel tells",
}
KINDS = {
    # HMAT: ten times the DRAM's bandwidth; the others are NVDIMMs.
    "fakeheteromemtiers": {2: "hbm", 4: "hbm", 6: "unknown", 8: "unknown", 9: "unknown"},
    "fakememinitiators-1np2c+1npp+gi": dict.fromkeys(range(11), "unknown"),
}
ALL = NAMES or ["none"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("machines")


def read(name: str, folder: Path) -> tuple[Machine, dict[str, Any]]:
    truth: dict[str, Any] = json.loads(needs(f"machines/truth/{name}.json").read_text())
    return read_machine(unpacked(name, folder)), truth


def pus_of(machine: Machine, package: int) -> str:
    return str(CpuSet(pu for core in machine.cores if core.package == package for pu in core.pus))


@pytest.mark.parametrize("name", ALL)
def test_pus_and_what_may_be_used_of_them(name: str, folder: Path) -> None:
    machine, truth = read(name, folder)
    assert str(machine.pus.online) == truth["online"]
    assert str(machine.pus.usable) == truth["allowed_pus"]
    assert str(machine.usable_nodes) == truth["allowed_nodes"]
    assert not machine.pus.offline & machine.pus.online


@pytest.mark.parametrize("name", ALL)
def test_the_doctor_reads_them_all(name: str, folder: Path) -> None:
    root = unpacked(name, folder)
    states = sound(Host(root, read_machine(root)))
    assert states["memory-policy"] == "unknown"  # nobody can ask a recorded kernel


@pytest.mark.parametrize("name", ALL)
def test_packages_and_cores(name: str, folder: Path) -> None:
    machine, truth = read(name, folder)
    cores = sorted(str(core.pus) for core in machine.cores)
    if name in CORES_DIFFER:
        halves = {one["pus"] for one in truth["cores"]}
        assert {str(pu) for core in cores for pu in CpuSet.parse(core)} == halves
    else:
        assert cores == sorted(core["pus"] for core in truth["cores"])
    homes = {one["os_index"]: one["pus"] for one in truth["packages"]}
    told = {one.os_index: pus_of(machine, one.os_index) for one in machine.packages}
    if name in PACKAGES_DIFFER:
        assert homes.items() < told.items()
        assert CpuSet(pu for core in machine.cores for pu in core.pus) == machine.pus.online
    else:
        assert told == homes
        by_core = {one["pus"]: one["package"] for one in truth["cores"]}
        for core in machine.cores:
            assert by_core.get(str(core.pus), core.package) == core.package
    for package in machine.packages:
        mine = [core for core in machine.cores if core.package == package.os_index]
        assert package.cores == len(mine)


@pytest.mark.parametrize("name", ALL)
def test_numa_nodes_and_distances(name: str, folder: Path) -> None:
    machine, truth = read(name, folder)
    assert [(one.os_index, str(one.cpus), one.memory_bytes) for one in machine.numa_nodes] == [
        (one["os_index"], str(CpuSet.parse(one["kernel_cpus"].strip("\n\0"))), one["memory_bytes"])
        for one in truth["numa_nodes"]
    ]
    if truth["distances"]:
        assert machine.distances is not None
        assert [list(row) for row in machine.distances] == truth["distances"]["matrix"]
    else:
        assert machine.distances in (None, ((10,),))
    expected = KINDS.get(name, {})
    for node in machine.numa_nodes:
        assert node.kind == expected.get(node.os_index, "dram")
        if not node.cpus:
            # hwloc shows memory below the PUs that reach it best.
            near = [one for one in machine.numa_nodes if one.os_index in node.initiators]
            pus = CpuSet(pu for one in near for pu in one.cpus)
            whole = next(one for one in truth["numa_nodes"] if one["os_index"] == node.os_index)
            assert node.memory_bytes == 0 or str(pus) == whole["cpus"]


@pytest.mark.parametrize("name", ALL)
def test_no_fact_is_told_twice_and_no_console_is_a_gpu(name: str, folder: Path) -> None:
    machine, _ = read(name, folder)
    assert machine.gpus == ()
    every = [pu for core in machine.cores for pu in core.pus]
    assert sorted(every) == list(machine.pus.online)
    placed = [pu for node in machine.numa_nodes for pu in node.cpus]
    assert len(placed) == len(set(placed))


def test_what_hwloc_hides_is_told(folder: Path) -> None:
    if not NAMES:
        pytest.skip("no recorded machines")
    buggy, _ = read("8em64t-2s2ca2c-buggynuma", folder)
    whys = [one.why for one in buggy.missing if one.what.endswith("cpulist")]
    assert len(whys) == 7
    assert all("of node 0" in why and "left out" in why for why in whys)
    assert any("together" in one.why for one in buggy.missing)
    hybrid, _ = read("20em64t-hybrid-1p6c2t+2ca4co1t", folder)
    assert {core.kind for core in hybrid.cores if len(core.pus) == 2} == {"performance"}
    assert {core.kind for core in hybrid.cores if len(core.pus) == 1} == {"efficiency"}
    assert "cores[*].kind" in {one.what for one in hybrid.missing}


def test_a_guest_with_cards_has_them_on_their_nodes() -> None:
    with open_root(needs("machines/g1.tar.gz")) as root:
        machine = read_machine(root)
    assert [(gpu.numa_node, gpu.vendor) for gpu in machine.gpus] == [
        (node, "1af4") for node in range(4)
    ]
    assert [str(node.initiators) for node in machine.numa_nodes[4:]] == ["0", "2"]


def test_the_root_may_be_named_by_its_folder(folder: Path) -> None:
    if not NAMES:
        pytest.skip("no recorded machines")
    root = unpacked(NAMES[0], folder)
    assert read_machine(HostRoot(root.path)) == read_machine(root)
