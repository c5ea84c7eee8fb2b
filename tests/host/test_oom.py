"""What the kernel tells of a process that it ended for want of memory, and one that really was."""

import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.host.oom import OomKills, oom_kills, out_of_memory
from engine.host.process import read_stat
from engine.host.root import HostRoot

KILLED = (
    "6,1029,4512345678,-;oom-kill:constraint={},nodemask=(null),cpuset=/,mems_allowed=0,"
    "oom_memcg=/x,task_memcg=/x,task=python3,pid=812,uid=0\n"
)


def written(folder: Path, files: dict[str, str]) -> HostRoot:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return HostRoot(folder)


def test_the_counter_of_version_2_is_the_groups_own(tmp_path: Path) -> None:
    events = "sys/fs/cgroup/user.slice/a/memory.events"
    root = written(
        tmp_path,
        {
            "proc/812/cgroup": "0::/user.slice/a\n",
            events: "low 0\noom 1\noom_kill 2\n",
            "proc/vmstat": "nr_free_pages 7\noom_kill 5\n",
        },
    )
    before = oom_kills(root, 812)
    assert before == OomKills(events, 2, 5)
    assert out_of_memory(root, 812, 0, before) == ""
    (tmp_path / events).write_text("low 0\noom 2\noom_kill 3\n")
    told = "the kernel ended a process in its control group (/sys/fs/cgroup/user.slice/a)"
    assert out_of_memory(root, 812, 0, before) == told


def test_in_a_container_the_group_is_what_is_mounted(tmp_path: Path) -> None:
    control = "sys/fs/cgroup/memory/memory.oom_control"
    root = written(
        tmp_path,
        {
            "proc/812/cgroup": "8:pids:/\n4:memory:/docker/0a1b\n0::/\n",
            control: "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
        },
    )
    assert oom_kills(root, 812) == OomKills(control, 0, None)


def test_without_any_counter_nothing_is_told(tmp_path: Path) -> None:
    before = oom_kills(HostRoot(tmp_path), 812)
    assert before == OomKills("", None, None)
    assert out_of_memory(HostRoot(tmp_path), 812, 0, before) == ""


@pytest.mark.parametrize(
    ("constraint", "why"),
    [
        ("CONSTRAINT_MEMCG", "its control group was at its limit"),
        ("CONSTRAINT_MEMORY_POLICY", "the NUMA nodes of its memory policy were full"),
        ("CONSTRAINT_NONE", "the machine's memory was full"),
    ],
)
def test_the_kernels_log_names_it(tmp_path: Path, constraint: str, why: str) -> None:
    root = written(tmp_path, {"dev/kmsg": KILLED.format(constraint)})
    none = OomKills("", None, None)
    told = f"the kernel ended python3 (pid 812), because {why}"
    assert out_of_memory(root, 812, 100, none) == told
    assert out_of_memory(root, 813, 100, none) == ""
    # The number belonged to an earlier process then.
    assert out_of_memory(root, 812, 10**7, none) == ""


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group of 40 MiB."""
    for parent, limit in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max"),
    ):
        group = Path(parent, f"slotdeck-test-{uuid.uuid4().hex[:8]}")
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(40 << 20))
            yield group
        except FileNotFoundError:
            continue
        else:
            return
        finally:
            group.rmdir()
    pytest.skip("no control group of memory can be made here")


def test_one_that_really_ran_out_is_told(small_group: Path) -> None:
    code = "import sys; sys.stdin.readline(); x = bytearray(200 << 20)"
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE) as process:
        (small_group / "cgroup.procs").write_text(str(process.pid))
        root = HostRoot()
        stat = read_stat(root, process.pid)
        assert stat is not None
        before = oom_kills(root, process.pid)
        assert str(small_group) in f"/{before.counter}"
        process.communicate(b"\n", timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert "the kernel ended" in out_of_memory(root, process.pid, stat.started_ticks, before)
