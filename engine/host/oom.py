"""Whether the kernel ended a process for want of memory: control groups' counters and its log."""

import os
import re
from dataclasses import dataclass
from posixpath import dirname

from engine.core.limits import shown_size
from engine.host.limit_groups import memory_limit
from engine.host.process import TICKS_PER_S
from engine.host.root import HostRoot

_GROUPS = (
    # Version 1, as long as it has the controller; version 2, where each line is `0::path`.
    (r"^[0-9]+:(?:[^:]*,)?memory(?:,[^:]*)?:(/.*)$", "sys/fs/cgroup/memory", "memory.oom_control"),
    (r"^0::(/.*)$", "sys/fs/cgroup", "memory.events"),
)
_RECORD_BYTES, _MOST_RECORDS = 8192, 100_000
_WORDS = {
    "CONSTRAINT_MEMCG": "its control group was at its limit",
    "CONSTRAINT_MEMORY_POLICY": "the NUMA nodes of its memory policy were full",
    "CONSTRAINT_CPUSET": "the NUMA nodes of its cpuset were full",
}


@dataclass(frozen=True, slots=True)
class OomKills:
    """How many processes the kernel has ended for want of memory; None where it does not tell."""

    counter: str
    """The file of the control group that has a counter; empty where there is none."""
    group: int | None
    machine: int | None
    limit_bytes: int | None = None
    """Of the group that has the counter; None where it has no limit of its own."""


def oom_kills(root: HostRoot, pid: int) -> OomKills:
    """The counters that matter to a process, as they stand now."""
    counter = _counter_of(root, pid)
    limit = memory_limit(root, _folder(counter)) if counter else None
    return OomKills(counter, _count(root, counter), _count(root, "proc/vmstat"), limit)


def out_of_memory(root: HostRoot, pid: int, started_ticks: int, before: OomKills) -> str:
    """What the kernel tells of a process that has ended since; empty where nothing."""
    of = f" of {shown_size(before.limit_bytes)}" if before.limit_bytes else ""
    if told := _from_log(root, pid, started_ticks / TICKS_PER_S):
        return f"{told}{of}" if told.endswith(_WORDS["CONSTRAINT_MEMCG"]) else told
    now = _count(root, before.counter)
    if before.group is not None and now is not None and now > before.group:
        limit = f", which was at its limit{of}" if of else ""
        return (
            f"the kernel ended a process in its control group (/{_folder(before.counter)}){limit}"
        )
    now = _count(root, "proc/vmstat")
    if before.machine is not None and now is not None and now > before.machine:
        return "the kernel ended a process of this machine for it meanwhile"
    return ""


def _folder(counter: str) -> str:
    return dirname(counter)


def _counter_of(root: HostRoot, pid: int) -> str:
    groups = root.text(f"proc/{pid}/cgroup") or ""
    for pattern, mounted, name in _GROUPS:
        line = re.search(pattern, groups, re.MULTILINE)
        if line is None:
            continue
        # In a container the path may be the host's: then what is mounted is the group itself.
        group = line.group(1).rstrip("/")
        while True:
            if _count(root, path := f"{mounted}{group}/{name}") is not None:
                return path
            if not group:
                break
            group = group.rpartition("/")[0]
    return ""


def _count(root: HostRoot, name: str) -> int | None:
    line = re.search(r"^oom_kill ([0-9]{1,15})$", (name and root.text(name)) or "", re.MULTILINE)
    return int(line.group(1)) if line else None


def _from_log(root: HostRoot, pid: int, since_s: float) -> str:
    """The kernel's own line about it (/dev/kmsg), where we may read that."""
    try:
        log = os.open(root.path / "dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        for _ in range(_MOST_RECORDS):
            try:
                record = os.read(log, _RECORD_BYTES).decode("utf-8", "replace")
            except BrokenPipeError:  # overwritten meanwhile: it goes on with the next one
                continue
            if told := _victim(record, pid, since_s):
                return told
            if not record:
                return ""
    except OSError:  # EAGAIN: that was the last one
        return ""
    finally:
        os.close(log)
    return ""


def _victim(record: str, pid: int, since_s: float) -> str:
    """`6,1029,4512345678,-;oom-kill:constraint=CONSTRAINT_MEMCG,…,task=python3,pid=812,uid=0`."""
    found = re.match(
        r"[0-9]+,[0-9]+,([0-9]{1,18}),[^;]*;oom-kill:constraint=(\w+),.*task=(.*),pid=([0-9]+),",
        record,
    )
    if found is None or int(found.group(4)) != pid or int(found.group(1)) / 1e6 < since_s:
        return ""
    why = _WORDS.get(found.group(2), "the machine's memory was full")
    name = "".join(char if char.isprintable() else "?" for char in found.group(3))
    return f"the kernel ended {name} (pid {pid}), because {why}"
