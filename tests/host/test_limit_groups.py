"""Where limits can be kept, by files as control groups show them, and what is read back."""

import os
from pathlib import Path

import pytest

from engine.core.limits import Limits
from engine.host.limit_groups import (
    LimitGroup,
    groups_for,
    limits_in_force,
    make,
    memory_limit,
    same_cores,
    same_memory,
)
from tests.kernel_files import tree

BOTH = Limits(1 << 30, 2.5)
MOUNTED = "30 24 0:26 / /sys/fs/cgroup rw - {kind} none rw{more}\n"
V2 = MOUNTED.format(kind="cgroup2", more="")
V1 = "".join(
    f"3{number} 24 0:26 / /sys/fs/cgroup/{names} rw - cgroup none rw,{names}\n"
    for number, names in enumerate(("memory", "cpu,cpuacct", "name=systemd"))
)
Files = dict[str, str | bytes]


def version_2(group: str, controllers: str = "cpu memory", shared_out: str = "") -> Files:
    folder = f"sys/fs/cgroup{group}".rstrip("/")
    return {
        "proc/self/mountinfo": V2,
        "proc/self/cgroup": f"0::{group}\n",
        "sys/fs/cgroup/cgroup.controllers": "cpuset cpu memory\n",
        "sys/fs/cgroup/cgroup.procs": "",
        "sys/fs/cgroup/cgroup.subtree_control": "",
        f"{folder}/cgroup.controllers": f"{controllers}\n",
        f"{folder}/cgroup.procs": "7\n",
        f"{folder}/cgroup.subtree_control": f"{shared_out}\n",
    }


def version_1(group: str) -> Files:
    return {
        "proc/self/mountinfo": V1,
        "proc/self/cgroup": f"4:memory:{group}\n2:cpu,cpuacct:/\n1:name=systemd:/a\n0::/\n",
        f"sys/fs/cgroup/memory{group}".rstrip("/") + "/cgroup.procs": "7\n",
        "sys/fs/cgroup/cpu,cpuacct/cgroup.procs": "7\n",
    }


def test_at_the_top_of_version_2_one_group_keeps_both(tmp_path: Path) -> None:
    groups, refused = groups_for(tree(tmp_path, version_2("/")), "x", BOTH)
    assert refused == ()
    assert groups == (
        LimitGroup(
            "sys/fs/cgroup/slotdeck_x",
            2,
            ("memory", "cpu"),
            (("memory.max", "1073741824"), ("cpu.max", "250000 100000")),
            (("memory.swap.max", "0"), ("memory.oom.group", "1")),
        ),
    )


def test_in_version_1_each_controller_has_a_group(tmp_path: Path) -> None:
    groups, refused = groups_for(tree(tmp_path, version_1("/")), "x", BOTH)
    assert refused == ()
    memory, cpu = groups
    assert memory.folder == "sys/fs/cgroup/memory/slotdeck_x"
    assert memory.limits == (("memory.limit_in_bytes", "1073741824"),)
    assert cpu.folder == "sys/fs/cgroup/cpu,cpuacct/slotdeck_x"
    assert cpu.limits == (("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "250000"))


@pytest.mark.parametrize(
    ("files", "limits", "why"),
    [
        ({}, BOTH, "no control groups with the memory controller are mounted"),
        (version_2("/", "cpuset cpu"), BOTH, "no control groups with the memory controller"),
        (
            {**version_2("/a.scope", "cpu"), "sys/fs/cgroup/cgroup.controllers": "cpu memory\n"},
            Limits(memory_bytes=1 << 30),
            "our control group /sys/fs/cgroup/a.scope has no memory controller",
        ),
        (
            {**version_2("/"), "proc/self/cgroup": "0::/../outside\n"},
            BOTH,
            "no control groups with the memory controller are mounted",
        ),
        (
            {**version_1("/"), "proc/self/cgroup": "4:memory:/gone\n"},
            Limits(memory_bytes=1 << 30),
            "we may not write to the control group /sys/fs/cgroup/memory/gone",
        ),
    ],
)
def test_the_reason_why_not(tmp_path: Path, files: Files, limits: Limits, why: str) -> None:
    groups, refused = groups_for(tree(tmp_path, files), "x", limits)
    first = refused[0]
    assert first.why.startswith("a limit of 1 GiB of memory cannot be set: ")
    assert why in first.why
    assert "Delegate=yes" in first.do
    assert all("memory" not in group.controllers for group in groups)


def test_a_group_that_nobody_handed_over_is_left_alone(tmp_path: Path) -> None:
    root = tree(tmp_path, version_2("/user.slice/a.scope"))
    refused = groups_for(root, "x", BOTH)[1]
    assert "is not ours: it was not handed over to us (delegated)" in refused[0].why
    folder = tmp_path / "sys/fs/cgroup/user.slice/a.scope"
    try:
        os.setxattr(folder, "user.delegate", b"1")
    except OSError as error:
        pytest.skip(f"this file system keeps no such mark: {error.strerror}")
    groups, none = groups_for(root, "x", BOTH)
    assert none == ()
    assert groups[0].folder == "sys/fs/cgroup/user.slice/a.scope/slotdeck_x"


def test_a_service_that_has_made_room_goes_on_beside_itself(tmp_path: Path) -> None:
    files = {**version_2("/"), "proc/self/cgroup": "0::/slotdeck_service\n"}
    groups, refused = groups_for(tree(tmp_path, files), "x", BOTH)
    assert refused == ()
    assert groups[0].folder == "sys/fs/cgroup/slotdeck_x"


def test_processes_go_aside_before_a_group_shares_out(tmp_path: Path) -> None:
    files = version_2("/ours", "cpuset cpu memory")
    files["sys/fs/cgroup/ours/cgroup.type"] = "domain\n"
    for name in ("slotdeck_service/cgroup.procs", "slotdeck_x/memory.max"):
        files[f"sys/fs/cgroup/ours/{name}"] = ""
    root = tree(tmp_path, files)
    group = LimitGroup(
        "sys/fs/cgroup/ours/slotdeck_x", 2, ("memory",), (("memory.max", "1073741824"),)
    )
    make(root, group)
    ours = tmp_path / "sys/fs/cgroup/ours"
    assert (ours / "slotdeck_service/cgroup.procs").read_text() == "7"
    assert (ours / "slotdeck_x/memory.max").read_text() == "1073741824"


def test_limits_are_read_back_from_the_group_that_was_made_for_them(tmp_path: Path) -> None:
    files = version_2("/")
    # A cpuset of its own, by which it was moved, lies inside.
    files["proc/9/cgroup"] = "0::/slotdeck_x/slotdeck-y\n"
    files["sys/fs/cgroup/slotdeck_x/memory.max"] = "1073741824\n"
    files["sys/fs/cgroup/slotdeck_x/cpu.max"] = "250000 100000\n"
    files["proc/8/cgroup"] = "0::/slotdeck_service\n"
    files["sys/fs/cgroup/slotdeck_service/memory.max"] = "1\n"
    files["proc/7/cgroup"] = "0::/slotdeck_free\n"
    files["sys/fs/cgroup/slotdeck_free/memory.max"] = "max\n"
    files["sys/fs/cgroup/slotdeck_free/cpu.max"] = "max 100000\n"
    root = tree(tmp_path, files)
    assert limits_in_force(root, 9) == BOTH
    assert limits_in_force(root, 8) == Limits()
    assert limits_in_force(root, 7) == Limits()
    assert limits_in_force(root, 6) == Limits()


def test_version_1_writes_its_largest_number_for_no_limit(tmp_path: Path) -> None:
    largest: Files = {"g/memory.limit_in_bytes": "9223372036854771712\n"}
    assert memory_limit(tree(tmp_path, largest), "g") is None


def test_the_kernel_rounds() -> None:
    assert same_memory((1 << 30) - 4095, 1 << 30)
    assert not same_memory((1 << 30) - (1 << 20), 1 << 30)
    assert not same_memory(None, 1 << 30)
    assert same_cores(0.33333, 1 / 3)
    assert not same_cores(0.5, 1 / 3)
