"""The machine as read: this one, hand-written trees with odd files, and recorded ones."""

import os
import re
from pathlib import Path

import pytest

from engine.core.cpuset import CpuSet
from engine.host.machine import read_machine
from engine.host.nodes import meminfo, numastat
from engine.host.root import HostRoot
from tests.kernel_files import ONLINE, STATUS, cpu, node, tree, what_is_missing


def test_this_host() -> None:
    machine = read_machine(HostRoot())
    assert machine.live
    assert machine.pus.usable.pus == os.sched_getaffinity(0)
    cpuinfo = Path("/proc/cpuinfo").read_text()
    assert machine.pus.online.pus == set(
        map(int, re.findall(r"^processor\s*: (\d+)", cpuinfo, re.M))
    )
    assert CpuSet(pu for core in machine.cores for pu in core.pus) == machine.pus.online
    assert read_machine(HostRoot()).revision == machine.revision


def test_siblings_come_from_lists_and_not_from_ids(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            ONLINE: "0-3\n",
            **cpu(0, "0,3", core="7"),
            **cpu(1, "1,2", core="7"),
            **cpu(2, "1,2", core="7"),
            **cpu(3, "0,3", core="7"),
            **node(0, "0-3", "10"),
            STATUS: "Cpus_allowed_list:\t0-2\nMems_allowed_list:\t0\n",
        },
    )
    machine = read_machine(root)
    assert not machine.live
    assert [str(core.pus) for core in machine.cores] == ["0,3", "1-2"]
    assert str(machine.pus.usable) == "0-2"
    assert what_is_missing(machine) == set()


def test_offline_pus_are_known_but_are_in_no_core(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            ONLINE: "0,2\n",
            **cpu(0, "0"),
            **cpu(2, "2", core="1"),
            "sys/devices/system/cpu/cpu1/online": "0\n",
            "sys/devices/system/cpu/cpu3/online": "0\n",
            **node(0, "0,2", "10"),
        },
    )
    machine = read_machine(root)
    assert (str(machine.pus.online), str(machine.pus.offline)) == ("0,2", "1,3")
    assert [str(core.pus) for core in machine.cores] == ["0", "2"]
    assert machine.pus.usable == machine.pus.online
    assert "proc/self/status Cpus_allowed_list" in what_is_missing(machine)


def test_without_the_online_list_each_pu_is_asked(tmp_path: Path) -> None:
    root = tree(
        tmp_path, {**cpu(0, "0"), **cpu(1, "1"), "sys/devices/system/cpu/cpu2/online": "0\n"}
    )
    machine = read_machine(root)
    assert (str(machine.pus.online), str(machine.pus.offline)) == ("0-1", "2")
    assert ONLINE in what_is_missing(machine)


def test_without_a_node_folder_there_are_no_nodes(tmp_path: Path) -> None:
    machine = read_machine(tree(tmp_path, {ONLINE: "0\n", **cpu(0, "0")}))
    assert machine.numa_nodes == ()
    assert machine.distances is None
    assert "numa_nodes" in what_is_missing(machine)


def test_a_memory_only_node_belongs_to_no_package(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            ONLINE: "0-1\n",
            **cpu(0, "0"),
            **cpu(1, "1", package="1"),
            **node(0, "0", "10 21 17"),
            **node(1, "1", "21 10 28"),
            **node(4, "", "17 28 10", kib=2048),
        },
    )
    machine = read_machine(root)
    far = machine.numa_nodes[2]
    assert (far.os_index, str(far.cpus), far.memory_bytes, far.packages) == (4, "", 2 << 20, ())
    assert machine.distance(0, 4) == 17
    assert machine.distance(4, 1) == 28
    assert machine.distance(0, 9) is None
    assert [str(package.numa_nodes) for package in machine.packages] == ["0", "1"]


def test_masks_of_old_kernels_and_a_nul_after_the_list(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            ONLINE: b"0-1,32-33\n\x00",
            **cpu(0, None),
            **cpu(1, None),
            **cpu(32, None),
            **cpu(33, None),
            "sys/devices/system/cpu/cpu0/topology/thread_siblings": "00000001,00000001\n",
            "sys/devices/system/cpu/cpu1/topology/thread_siblings": "00000002,00000002\n",
            "sys/devices/system/node/node0/cpumap": "00000003,00000003\n",
            "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal: 4 kB\n",
            "sys/devices/system/node/node0/distance": "10\n",
        },
    )
    machine = read_machine(root)
    assert [str(core.pus) for core in machine.cores] == ["0,32", "1,33"]
    assert str(machine.numa_nodes[0].cpus) == "0-1,32-33"


def test_hybrid_cores_have_kinds(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            ONLINE: "0-2\n",
            **cpu(0, "0-1"),
            **cpu(1, "0-1"),
            **cpu(2, "2"),
            "sys/devices/cpu_core/cpus": "0-1\n",
            "sys/devices/cpu_atom/cpus": "2\n",
        },
    )
    assert [core.kind for core in read_machine(root).cores] == ["performance", "efficiency"]


@pytest.mark.parametrize(
    "garbage",
    [
        *("", "\n", "x", "-1", "0-", "9" * 5000, "0-999999999999", "٣", "0x1"),
        *("0\n1", "\x00", b"\xff\xfe\x80", "4294967295", "-", "1 2 3"),
    ],
)
@pytest.mark.parametrize(
    "name",
    [
        ONLINE,
        "sys/devices/system/cpu/cpu0/topology/thread_siblings_list",
        "sys/devices/system/cpu/cpu0/topology/physical_package_id",
        "sys/devices/system/cpu/cpu0/topology/core_id",
        "sys/devices/system/node/node0/cpulist",
        "sys/devices/system/node/node0/distance",
        "sys/devices/system/node/node0/meminfo",
        STATUS,
    ],
)
def test_garbage_never_crashes_and_is_told(
    tmp_path: Path, name: str, garbage: str | bytes
) -> None:
    root = tree(
        tmp_path,
        {
            ONLINE: "0-1\n",
            **cpu(0, "0"),
            **cpu(1, "1"),
            **node(0, "0-1", "10"),
            STATUS: "Cpus_allowed_list:\t0-1\nMems_allowed_list:\t0\n",
            name: garbage,
        },
    )
    machine = read_machine(root)
    assert machine.pus.usable <= machine.pus.online
    # An empty list is lawful, and a core's number is not needed.
    lawful = garbage in ("", "\n", "\x00") and name.endswith(("list", "online"))
    if not lawful and not name.endswith(("core_id", "package_id")):
        told = what_is_missing(machine)
        assert any(name.rpartition("/")[2].partition("_")[0] in what for what in told), told


@pytest.mark.parametrize("name", [ONLINE, STATUS, "sys/devices/system/node/node0/meminfo"])
def test_a_folder_in_place_of_a_file(tmp_path: Path, name: str) -> None:
    tree(tmp_path, {**cpu(0, "0"), **node(0, "0", "10")})
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir(parents=True)
    assert str(read_machine(HostRoot(tmp_path)).pus.online) == "0"


def test_an_empty_tree_is_a_machine_without_anything(tmp_path: Path) -> None:
    machine = read_machine(HostRoot(tmp_path / "nothing"))
    assert machine.cores == ()
    assert {"cores", "numa_nodes"} <= what_is_missing(machine)


def test_node_counters(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "sys/devices/system/node/node0/numastat": "numa_hit 12\nlocal_node 10\nbad x\nsq ²\n",
            "sys/devices/system/node/node0/meminfo": "Node 0 Active(anon): 3 kB\nNode 0 Huge: 4\n",
        },
    )
    assert numastat(root, 0) == {"numa_hit": 12, "local_node": 10}
    assert meminfo(root, 0) == {"Active(anon)": 3072}
    assert numastat(root, 7) == {}
