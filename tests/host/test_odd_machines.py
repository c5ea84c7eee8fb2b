"""Machines that contradict themselves or lack a part, each from files written by hand."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from engine.core.cpuset import NodeSet
from engine.core.synthetic import parse_synthetic
from engine.core.topology import Machine
from engine.host.machine import read_machine
from engine.host.nodes import read_nodes
from tests.kernel_files import ONLINE, STATUS, cpu, node, tree, what_is_missing
from tests.sysfs_tree import write_machine

CPU = "sys/devices/system/cpu/cpu"


def cores(machine: Machine) -> list[str]:
    return [str(core.pus) for core in machine.cores]


def test_a_core_is_its_siblings_and_never_its_number(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {ONLINE: "0-7\n"}
    for pu in range(8):
        # Two dies a package, each with cores 0 and 1.
        files |= cpu(pu, f"{pu}", package=str(pu // 4), core=str(pu % 2))
    machine = read_machine(tree(tmp_path, files))
    assert cores(machine) == [str(pu) for pu in range(8)]
    assert [package.cores for package in machine.packages] == [4, 4]


@pytest.mark.parametrize(
    ("lists", "expected", "rows"),
    [
        # PU 0's own list is cut: its sibling still names it.
        (["0", "1,3", "0,2", "1,3"], ["0,2", "1,3"], 1),
        # PU 0 claims another's sibling: what both of a pair say stands.
        (["0-1", "1,3", "0,2", "1,3"], ["0,2", "1,3"], 1),
        # One that claims all.
        (["0-3", "1", "2", "3"], ["0", "1", "2", "3"], 1),
        # None readable: cores of one PU each.
        (["x", "x", "x", "x"], ["0", "1", "2", "3"], 4),
        # One unreadable: its sibling tells.
        (["x", "1,3", "0,2", "1,3"], ["0,2", "1,3"], 0),
    ],
)
def test_siblings_that_contradict_each_other(
    tmp_path: Path, lists: list[str], expected: list[str], rows: int
) -> None:
    files: dict[str, str | bytes] = {ONLINE: "0-3\n"}
    for pu, told in enumerate(lists):
        files |= cpu(pu, told, core=str(pu % 2))
    machine = read_machine(tree(tmp_path, files))
    assert sorted(cores(machine)) == sorted(expected)
    told_rows = {what for what in what_is_missing(machine) if what.endswith("siblings_list")}
    assert len(told_rows) == rows


def test_the_other_files_for_the_same_set_settle_a_dispute(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {ONLINE: "0-1\n", **cpu(0, "0"), **cpu(1, "0-1")}
    for pu in (0, 1):
        files[f"{CPU}{pu}/topology/core_cpus_list"] = "0-1\n"
        files[f"{CPU}{pu}/topology/thread_siblings"] = "3\n"
    assert cores(read_machine(tree(tmp_path, files))) == ["0-1"]


@pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings", "core_cpus"])
def test_each_name_that_a_kernel_had_for_siblings(tmp_path: Path, name: str) -> None:
    text = "0-1\n" if name.endswith("list") else "00000000,00000003\n"
    files: dict[str, str | bytes] = {ONLINE: "0-1\n", **cpu(0, None), **cpu(1, None)}
    files |= {f"{CPU}{pu}/topology/{name}": text for pu in (0, 1)}
    assert cores(read_machine(tree(tmp_path, files))) == ["0-1"]


@pytest.mark.parametrize("name", ["core_siblings_list", "package_cpus", "core_siblings"])
def test_a_package_number_that_is_lost_is_that_of_its_mates(tmp_path: Path, name: str) -> None:
    text = "2-3\n" if name.endswith("list") else "c\n"
    files: dict[str, str | bytes] = {ONLINE: "0-3\n"}
    for pu in range(4):
        files |= cpu(pu, str(pu), package=str(pu // 2 * 7), core=str(pu))
    files[f"{CPU}2/topology/physical_package_id"] = "-1\n"
    machine = read_machine(tree(tmp_path, {**files, f"{CPU}2/topology/{name}": text}))
    assert [core.package for core in machine.cores] == [0, 0, 7, 7]


def test_no_package_told_is_no_package(tmp_path: Path) -> None:
    files = {ONLINE: "0-1\n", **cpu(0, "0", package="-1"), **cpu(1, "1", package="65535")}
    machine = read_machine(tree(tmp_path, files))
    assert machine.packages == ()
    assert f"{CPU}1/topology/physical_package_id" in what_is_missing(machine)


def test_pu_0_may_be_offline_and_a_pu_without_topology_is_a_core(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        ONLINE: "1-2\n",
        f"{CPU}0/online": "0\n",
        **cpu(1, "1"),
        f"{CPU}2/online": "1\n",
    }
    machine = read_machine(tree(tmp_path, files))
    assert (str(machine.pus.offline), cores(machine)) == ("0", ["1", "2"])
    assert f"{CPU}2/topology/thread_siblings_list" in what_is_missing(machine)


def test_a_list_of_online_pus_that_a_container_narrowed(tmp_path: Path) -> None:
    files = {ONLINE: "0-1\n", **cpu(0, "0"), **cpu(1, "1"), **cpu(2, "2"), **cpu(3, "3")}
    machine = read_machine(tree(tmp_path, {**files, f"{CPU}3/online": "0\n"}))
    assert (str(machine.pus.online), str(machine.pus.offline)) == ("0-2", "3")
    assert ONLINE in what_is_missing(machine)


def test_what_might_be_plugged_in_is_not_offline(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        ONLINE: "0\n",
        "sys/devices/system/cpu/present": "0-1\n",
        **cpu(0, "0"),
        f"{CPU}1/online": "0\n",
        f"{CPU}2/online": "0\n",
    }
    assert str(read_machine(tree(tmp_path, files)).pus.offline) == "1"


def test_numbers_without_folders(tmp_path: Path) -> None:
    machine = read_machine(tree(tmp_path, {ONLINE: "0-1000000\n"}))
    assert len(machine.cores) == 8192
    stray = read_machine(tree(tmp_path, {ONLINE: "0-99\n", **cpu(0, "0")}))
    assert (cores(stray), ONLINE in what_is_missing(stray)) == (["0"], True)


def test_sparse_nodes_of_uneven_size_keep_their_numbers(tmp_path: Path) -> None:
    files = {ONLINE: "0-3\n"}
    machine = read_machine(
        tree(
            tmp_path,
            {
                **files,
                **{name: text for pu in range(4) for name, text in cpu(pu, str(pu)).items()},
                **node(0, "0-2", "10 21 32"),
                **node(8, "3", "20 10 30"),  # farther there than back
                **node(252, "", "32 30 10", kib=4096),
            },
        )
    )
    assert [(one.os_index, str(one.cpus)) for one in machine.numa_nodes] == [
        *((0, "0-2"), (8, "3"), (252, "")),
    ]
    assert (machine.distance(0, 8), machine.distance(8, 0)) == (21, 20)
    assert machine.distance(252, 8) == 30


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (["10 20", "20"], "1 numbers for 2 nodes"),
        (["10 20 20", "20 10 20"], "3 numbers for 2 nodes"),
        (["10 0", "20 10"], "0 is not from 10 to 255"),
        (["10 -20", "20 10"], "-20 is not from 10 to 255"),
        (["10 9", "20 10"], "9 is not from 10 to 255"),
        (["10 256", "20 10"], "256 is not from 10 to 255"),
        (["20 10", "10 20"], "20 to itself, which is 10 by definition"),
        (["10 x", "20 10"], "absent, or not numbers"),
        (["", "20 10"], "absent, or not numbers"),
    ],
)
def test_distances_that_cannot_be_true_are_not_taken(
    tmp_path: Path, rows: list[str], why: str
) -> None:
    nodes = read_nodes(tree(tmp_path, {**node(0, "0", rows[0]), **node(1, "1", rows[1])}))
    assert nodes.distances is None
    assert [row.why for row in nodes.missing] == [f"{why}: no distances taken"]


def test_emulated_nodes_may_all_be_near(tmp_path: Path) -> None:
    nodes = read_nodes(tree(tmp_path, {**node(0, "0", "10 10"), **node(1, "1", "10 10")}))
    assert nodes.distances == ((10, 10), (10, 10))


def test_a_pu_is_in_one_node_at_most(tmp_path: Path) -> None:
    files = {ONLINE: "0-2\n", **cpu(0, "0"), **cpu(1, "1"), **cpu(2, "2")}
    files |= node(0, "0-1", "10 20 20") | node(1, "0-1", "20 10 20") | node(2, "1-2,9", "20 20 10")
    machine = read_machine(tree(tmp_path, files))
    assert [(one.os_index, str(one.cpus)) for one in machine.numa_nodes] == [(0, "0-1"), (2, "2")]
    assert machine.distances == ((10, 20), (20, 10))
    whys = [row.why for row in machine.missing if row.what.endswith("cpulist")]
    assert len(whys) == 3  # a second owner, a shared PU, and a PU that is not there


def test_pus_of_a_node_from_its_links_and_pus_of_no_node(tmp_path: Path) -> None:
    files = {ONLINE: "0-1\n", **cpu(0, "0"), **cpu(1, "1"), **node(0, "x", "10")}
    (tmp_path / "sys/devices/system/node/node0/cpu0").mkdir(parents=True)
    machine = read_machine(tree(tmp_path, files))
    assert str(machine.numa_nodes[0].cpus) == "0"
    assert "cores PU 1 numa_nodes" in what_is_missing(machine)


@pytest.mark.parametrize(("kib", "differs"), [(2048, False), (2080, False), (9999, True)])
def test_memory_that_does_not_add_up_is_told(tmp_path: Path, kib: int, differs: bool) -> None:
    files = {ONLINE: "0\n", **cpu(0, "0"), **node(0, "0", "10 20"), **node(1, "", "20 10")}
    files["proc/meminfo"] = f"MemTotal:       {kib} kB\nMemFree: 1 kB\n"
    machine = read_machine(tree(tmp_path, files))
    assert ("numa_nodes memory_bytes" in what_is_missing(machine)) == differs
    assert machine.total_memory_bytes == 2 << 20


def test_without_numa_the_memory_is_the_machines(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {ONLINE: "0\n", **cpu(0, "0")}
    machine = read_machine(tree(tmp_path, {**files, "proc/meminfo": "MemTotal: 64 kB\n"}))
    assert (machine.numa_nodes, machine.total_memory_bytes) == ((), 65536)
    (tmp_path / "proc/meminfo").unlink()
    bare = read_machine(tree(tmp_path, {}))
    assert bare.total_memory_bytes is None
    assert {"memory_bytes", "numa_nodes"} <= what_is_missing(bare)


def test_a_file_without_its_end_is_no_number(tmp_path: Path) -> None:
    files = {ONLINE: "0-1", **cpu(0, "0"), **cpu(12, "12"), STATUS: "Cpus_allowed_list:\t0-1"}
    machine = read_machine(tree(tmp_path, files))
    assert str(machine.pus.online) == "0,12"
    assert {ONLINE, f"{STATUS} Cpus_allowed_list"} <= what_is_missing(machine)


def test_a_large_machine_is_read_quickly(tmp_path: Path) -> None:
    made = parse_synthetic("pack:8 numa:4 core:32 pu:2 mem:8GiB")
    root = write_machine(made, tmp_path)
    start = time.process_time()
    read = read_machine(root)
    # 45 ms of processor time; a hundred times that is a mistake.
    assert time.process_time() - start < 5
    assert read.cores == made.cores
    assert read.numa_nodes == made.numa_nodes


def test_the_revision_is_of_what_placements_rest_on() -> None:
    machine = parse_synthetic("pack:2 core:2 gpu:1*8GiB mem:8GiB")
    idle = replace(machine, gpus=tuple(replace(gpu, link_gt_s=2.5) for gpu in machine.gpus))
    assert idle.revision == machine.revision
    grown = tuple(replace(node, memory_bytes=1 << 40) for node in machine.numa_nodes)
    assert replace(machine, numa_nodes=grown).revision == machine.revision
    emptied = tuple(replace(node, memory_bytes=0) for node in machine.numa_nodes)
    assert replace(machine, numa_nodes=emptied).revision != machine.revision
    assert replace(machine, gpus=machine.gpus[:1]).revision != machine.revision
    assert replace(machine, usable_nodes=NodeSet([0])).revision != machine.revision
