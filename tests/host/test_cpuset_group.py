"""Whether an engine can be given a cpuset of its own, by files as control groups show them."""

from pathlib import Path

import pytest

from engine.core.cpuset import NodeSet
from engine.host.cpuset_group import folder_for, why_not_rebound
from tests.kernel_files import tree

ONE, TWO = NodeSet([1]), NodeSet([2])


def files(
    group: str, controllers: str, shared_out: str = "", kind: str | None = "domain"
) -> dict[str, str | bytes]:
    folder = f"sys/fs/cgroup{group}".rstrip("/")
    written: dict[str, str | bytes] = {
        "proc/7/cgroup": f"0::{group}\n",
        "proc/7/status": "Mems_allowed_list:\t0-3\n",
        "sys/fs/cgroup/cgroup.controllers": "cpuset cpu memory\n",
        f"{folder}/cgroup.controllers": f"{controllers}\n",
        f"{folder}/cgroup.subtree_control": f"{shared_out}\n",
        f"{folder}/cgroup.procs": "7\n",
    }
    if kind is not None:
        written[f"{folder}/cgroup.type"] = f"{kind}\n"
    return written


def version_1(group: str) -> dict[str, str | bytes]:
    folder = f"sys/fs/cgroup/cpuset{group}".rstrip("/")
    return {
        "proc/7/status": "Mems_allowed_list:\t0-3\n",
        "sys/fs/cgroup/cpuset/cpuset.mems": "0-3\n",
        f"{folder}/cgroup.procs": "7\n",
    }


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (files("/", "cpuset cpu memory", "memory", kind=None), ""),
        (files("/user/a.scope", "cpuset memory"), ""),
        (files("/user/a.scope", "cpuset memory", "cpuset"), ""),
        # Where slotdeck has put it before.
        (
            {
                **files("/user/a.scope", "cpuset memory", "cpuset"),
                "proc/7/cgroup": "0::/user/a.scope/slotdeck-0123\n",
            },
            "",
        ),
        (
            files("/user/a.scope", "memory pids"),
            "its control group /user/a.scope has no cpuset controller (systemd: Delegate=cpuset)",
        ),
        (
            files("/user/a.scope", "cpuset memory", "memory"),
            "its control group /user/a.scope shares out more than CPUs (memory)",
        ),
        (
            {"proc/7/cgroup": "3:cpuset:/\n0::/\n", "sys/fs/cgroup/cpuset/tasks": ""},
            "this kernel has no cpusets mounted (/sys/fs/cgroup)",
        ),
        (
            {**files("/", "cpuset"), **version_1("/"), "proc/7/cgroup": "3:cpuset:/\n0::/\n"},
            "",
        ),
        (
            {**version_1("/docker/12"), "proc/7/cgroup": "3:cpu,cpuset:/docker/12\n0::/\n"},
            "",
        ),
        (
            {**version_1("/"), "proc/7/cgroup": "3:cpuset:/hidden\n"},
            "we may not write to its control group /hidden",
        ),
        (
            {**files("/", "cpuset"), "proc/7/cgroup": "0::/../outside\n"},
            "its control group lies outside of what we see",
        ),
    ],
)
def test_the_reason_why_not(tmp_path: Path, found: dict[str, str | bytes], why: str) -> None:
    assert why_not_rebound(tree(tmp_path, found), 7, ONE, TWO) == why


def test_nodes_that_the_kernel_would_not_turn_into_the_asked_ones(tmp_path: Path) -> None:
    root = tree(tmp_path, files("/a", "cpuset"))
    why = why_not_rebound(root, 7, NodeSet([1, 3]), NodeSet([0, 2]))
    assert why == "the kernel would turn its nodes 1,3 into 2"


@pytest.mark.parametrize(
    ("group", "folder"),
    [
        ("/", "sys/fs/cgroup/slotdeck-0123"),
        ("/user/a.scope", "sys/fs/cgroup/user/a.scope/slotdeck-0123"),
        ("/user/a.scope/slotdeck-0123", "sys/fs/cgroup/user/a.scope/slotdeck-0123"),
    ],
)
def test_its_own_group_is_named_before_it_is_made(tmp_path: Path, group: str, folder: str) -> None:
    root = tree(tmp_path, files(group, "cpuset"))
    assert folder_for(root, 7, "0123") == folder
    with pytest.raises(OSError, match="outside of what we see"):
        folder_for(root, 8, "0123")
