"""Processes as /proc tells them: identity, family, CPU time, memory, affinity of each thread."""

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from engine.core.cpuset import CpuSet
from engine.host.root import HostRoot

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_KERNEL_THREAD = 0x00200000
"""PF_KTHREAD of the flags (linux/sched.h): most processes of a large server are such."""


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """The fields of /proc/PID/stat that we use (proc_pid_stat(5))."""

    pid: int
    name: str
    state: str
    parent: int
    group: int
    session: int
    cpu_s: float
    """User and system time of all its threads, living and ended; not of its children."""
    started_ticks: int
    """Clock ticks after boot: with the boot id and the pid, a process's identity."""
    rss_bytes: int
    is_kernel: bool = False
    """A thread of the kernel's own: it has no environment, no memory and no open files."""

    @property
    def alive(self) -> bool:
        """A zombie has ended, it only waits to be collected."""
        return self.state not in "ZXx"


def read_stat(root: HostRoot, pid: int) -> ProcessStat | None:
    """None when there is no such process."""
    text = root.text(f"proc/{pid}/stat")
    if not text:
        return None
    # The name may hold spaces and parentheses: the last ") " ends it.
    head, _, tail = text.rpartition(") ")
    fields = tail.split()
    if len(fields) < 22:
        return None
    return ProcessStat(
        pid=pid,
        name=head.partition(" (")[2],
        state=fields[0],
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        cpu_s=(int(fields[11]) + int(fields[12])) / TICKS_PER_S,
        started_ticks=int(fields[19]),
        rss_bytes=int(fields[21]) * PAGE_BYTES,
        is_kernel=bool(int(fields[6]) & _KERNEL_THREAD),
    )


def read_all(root: HostRoot) -> dict[int, ProcessStat]:
    """Every process that we can see, by pid."""
    found: dict[int, ProcessStat] = {}
    for name in root.names("proc"):
        if name.isdigit() and (stat := read_stat(root, int(name))):
            found[stat.pid] = stat
    return found


def family(processes: dict[int, ProcessStat], leaders: Iterable[int]) -> tuple[int, ...]:
    """The living processes of these leaders: their sessions and groups, and all descendants.

    A child that made a session of its own is still found through its parent; one that was also
    re-parented is not (its environment mark finds it, see `marked`).
    """
    wanted = set(leaders)
    members = {
        stat.pid for stat in processes.values() if {stat.pid, stat.session, stat.group} & wanted
    }
    children: dict[int, list[int]] = {}
    for stat in processes.values():
        children.setdefault(stat.parent, []).append(stat.pid)
    waiting = list(members)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in members:
                members.add(child)
                waiting.append(child)
    return tuple(sorted(pid for pid in members if processes[pid].alive))


def marked(root: HostRoot, processes: dict[int, ProcessStat], mark: str) -> tuple[int, ...]:
    """The living processes whose environment holds `mark`, wherever they have gone."""
    wanted = mark.encode()
    return tuple(
        stat.pid
        for stat in processes.values()
        if stat.alive and not stat.is_kernel and wanted in _environment(root, stat.pid)
    )


def marks(
    root: HostRoot, variable: str, processes: dict[int, ProcessStat] | None = None
) -> dict[int, str]:
    """Every living process that carries an environment variable, with its value there.

    Of all, or of those that were read before.
    """
    start = f"{variable}=".encode()
    return {
        stat.pid: setting[len(start) :].decode("utf-8", "replace")
        for stat in (read_all(root) if processes is None else processes).values()
        if stat.alive and not stat.is_kernel
        for setting in _environment(root, stat.pid)
        if setting.startswith(start)
    }


def _environment(root: HostRoot, pid: int) -> list[bytes]:
    try:
        return (root.path / f"proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # another user's process, or one that has just ended
        return []


def thread_affinities(root: HostRoot, pid: int) -> dict[int, CpuSet]:
    """Each thread's allowed PUs, from /proc/PID/task/TID/status."""
    affinities: dict[int, CpuSet] = {}
    for name in root.names(f"proc/{pid}/task"):
        status = root.text(f"proc/{pid}/task/{name}/status") or ""
        match = re.search(r"^Cpus_allowed_list:[ \t]*([0-9,-]+)$", status, re.MULTILINE)
        if match:
            affinities[int(name)] = CpuSet.parse(match.group(1))
    return affinities


def open_files(root: HostRoot, pid: int) -> dict[str, str] | None:
    """What each of its file descriptors is (proc_pid_fd(5)): a path, or `socket:[INODE]`.

    None where that is not ours to see, or it has ended.
    """
    folder = root.path / f"proc/{pid}/fd"
    found: dict[str, str] = {}
    try:
        for name in os.listdir(folder):  # noqa: PTH208 - engines have thousands of connections
            with contextlib.suppress(FileNotFoundError):  # closed since
                found[name] = os.readlink(folder / name)  # noqa: PTH115
    except OSError:
        return None
    return found


def owner(root: HostRoot, pid: int) -> int | None:
    """The user that a process runs as; None when there is no such process."""
    try:
        return (root.path / f"proc/{pid}").stat().st_uid
    except OSError:
        return None


def boot_id(root: HostRoot) -> str:
    """Changes with every boot: pids and start times of an earlier boot mean nothing."""
    return root.text("proc/sys/kernel/random/boot_id") or ""
