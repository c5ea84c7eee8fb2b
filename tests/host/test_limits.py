"""What we may use: affinity, cpusets of both versions, containers, and mounts in odd places."""

from pathlib import Path

import pytest

from engine.host.limits import read_limits
from tests.kernel_files import STATUS, tree

CGROUP = "proc/self/cgroup"
V2 = "26 1 0:23 {root} {at} rw - cgroup2 cgroup2 rw\n"
V1 = "30 25 0:26 {root} {at} rw - cgroup cgroup rw,cpuset{more}\n"


def allowed(pus: str, nodes: str) -> str:
    return f"Name:\tx\nCpus_allowed_list:\t{pus}\nMems_allowed_list:\t{nodes}\nvoluntary:\t1\n"


@pytest.mark.parametrize(
    ("files", "pus", "nodes"),
    [
        # Nothing told at all.
        ({}, None, None),
        # Only the kernel's own word.
        ({STATUS: allowed("0-3,8", "0")}, "0-3,8", "0"),
        # Version 2, by the usual place.
        (
            {
                CGROUP: "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpuset.cpus.effective": "2-5\n",
                "sys/fs/cgroup/a/b/cpuset.mems.effective": "1\n",
            },
            *("2-5", "1"),
        ),
        # Version 2: the controller is on in a group above ours only.
        (
            {
                CGROUP: "0::/a/b/c\n",
                "sys/fs/cgroup/a/cpuset.cpus.effective": "2-5\n",
                "sys/fs/cgroup/a/cpuset.mems.effective": "0-1\n",
                "sys/fs/cgroup/cpuset.cpus.effective": "0-7\n",
            },
            *("2-5", "0-1"),
        ),
        # Version 1 beside version 2 (hybrid): the controller is bound in version 1.
        (
            {
                CGROUP: "5:cpu,cpuset:/job\n1:name=systemd:/u\n0::/u\n",
                "sys/fs/cgroup/cpuset/job/cpuset.effective_cpus": "4-5\n",
                "sys/fs/cgroup/cpuset/job/cpuset.cpus": "4-7\n",
                "sys/fs/cgroup/cpuset/job/cpuset.mems": "1\n",
            },
            *("4-5", "1"),
        ),
        # Version 1 with `noprefix`, mounted by hand; old kernels tell only proc/self/cpuset.
        (
            {
                "proc/self/cpuset": "/prout\n",
                "proc/mounts": "cpuset /dev/cpuset cgroup rw,cpuset,noprefix 0 0\n",
                "dev/cpuset/prout/cpus": "0-3\n",
                "dev/cpuset/prout/mems": "2-3\n",
            },
            *("0-3", "2-3"),
        ),
        # The file system that came before control groups; a mount point with a blank.
        (
            {
                "proc/self/cpuset": "/d\n",
                "proc/mounts": "none /dev/cpu\\040sets cpuset rw 0 0\n",
                "dev/cpu sets/d/cpus": "6\n",
                "dev/cpu sets/d/mems": "1\n",
            },
            *("6", "1"),
        ),
        # A container without a cgroup namespace sees its own group mounted as the top.
        (
            {
                CGROUP: "4:cpuset:/docker/abc\n",
                "proc/self/mountinfo": V1.format(root="/docker/abc", at="/cg/cpuset", more=""),
                "cg/cpuset/cpuset.effective_cpus": "1\n",
                "cg/cpuset/cpuset.effective_mems": "0\n",
            },
            *("1", "0"),
        ),
        # A group outside of our namespace, and the same name with another end.
        (
            {
                CGROUP: "0::/../../other\n",
                "proc/self/mountinfo": V2.format(root="/", at="/odd"),
                "odd/cpuset.cpus.effective": "3\n",
                "odd/cpuset.mems.effective": "0\n",
            },
            *("3", "0"),
        ),
        (
            {
                CGROUP: "0::/docker/abcd\n",
                "proc/self/mountinfo": V2.format(root="/docker/abc", at="/odd"),
                "odd/cpuset.cpus.effective": "3\n",
            },
            *("3", None),
        ),
        # Both told: what both allow. Files of another moment contradict: the kernel's word.
        (
            {
                STATUS: allowed("0-3", "0-1"),
                CGROUP: "0::/\n",
                "sys/fs/cgroup/cpuset.cpus.effective": "2-5\n",
                "sys/fs/cgroup/cpuset.mems.effective": "4\n",
            },
            *("2-3", "0-1"),
        ),
        # An empty `cpuset.cpus` means the parent's; a controller in no file limits nothing.
        (
            {
                CGROUP: "3:cpuset:/a\n",
                "sys/fs/cgroup/cpuset/a/cpuset.cpus": "\n",
                "sys/fs/cgroup/cpuset/cpuset.cpus": "0-9\n",
            },
            *("0-9", None),
        ),
        ({CGROUP: "0::/a\n"}, None, None),
        # Garbage.
        ({CGROUP: "x\n::\n0::a\n1:cpuset\n", "proc/self/mountinfo": "1 2 - \n - \n"}, None, None),
        ({STATUS: "Cpus_allowed_list:\t0-\nMems_allowed_list:\t0"}, None, None),
    ],
)
def test_what_we_may_use(
    tmp_path: Path, files: dict[str, str | bytes], pus: str | None, nodes: str | None
) -> None:
    limits = read_limits(tree(tmp_path, files))
    assert [None if each is None else str(each) for each in (limits.pus, limits.nodes)] == [
        *(pus, nodes),
    ]
    # Whatever the kernel's own word is not for is told.
    told = STATUS in files and limits.pus is not None
    assert len(limits.missing) == (0 if told else 2)
    for row in limits.missing:
        assert row.what.startswith(f"{STATUS} ")
