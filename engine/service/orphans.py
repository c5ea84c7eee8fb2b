"""Processes of earlier starts that no journal knows any more: found, shown, ended on request."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.core.cpuset import CpuSet
from engine.core.errors import ControlError
from engine.core.status import State
from engine.host.paths import Paths
from engine.host.process import (
    TICKS_PER_S,
    ProcessStat,
    family,
    marks,
    owner,
    read_all,
    thread_affinities,
)
from engine.host.root import HostRoot
from engine.service.journal import JournalRow, peek_journal
from engine.service.processes import FOLDER, MARK, exit_record, in_session, open_verified

GRACE_S = 10.0
_KILLED_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Orphan:
    """A living process of an instance that nobody looks after."""

    pid: int
    started_ticks: int
    instance: str
    """The name of its instance then; there may be another one of that name now."""
    name: str
    """The kernel's short name of it (`comm`)."""
    pus: CpuSet
    rss_bytes: int
    age_s: float


def protected(rows: Iterable[JournalRow]) -> frozenset[str]:
    """Marks of the instances that a service looks after."""
    active = (State.STARTING, State.READY, State.STOPPING)
    return frozenset(
        row.mark
        for row in rows
        if row.mark and (row.running or row.launched or row.life.state in active)
    )


def orphans_of(root: HostRoot, paths: Paths) -> tuple[Orphan, ...]:
    """By the journal on disk; raises ControlError where it cannot be read: then nobody knows
    whose the processes are."""
    found = _carriers(root, paths)  # before the journal, in which a start is before it is made
    read = peek_journal(paths.journal)
    if read.problem:
        raise ControlError(
            what="It cannot be told which processes are left over",
            why=read.problem,
            do="Start the service first (`slotdeck up`, or the panel): it puts that file aside",
        )
    known = protected(read.page.instances) if read.page else frozenset()
    return _orphans(root, paths, found, known)


def unknown_to(
    root: HostRoot, paths: Paths, known: Callable[[], Collection[str]]
) -> tuple[Orphan, ...]:
    """Those that carry none of the marks; `known` is asked after the processes were looked at."""
    found = _carriers(root, paths)
    return _orphans(root, paths, found, known())


def _carriers(root: HostRoot, paths: Paths) -> dict[int, tuple[str, str]]:
    """Of this user and these folders: pid -> mark, instance. Another service of the same user,
    with folders of its own, has engines of its own."""
    by_mark, folders = marks(root, MARK), marks(root, FOLDER)
    place = paths.instance("x").parent
    return {
        pid: (mark, Path(folders[pid]).name)
        for pid, mark in by_mark.items()
        if pid in folders
        and Path(folders[pid]).parent == place
        and owner(root, pid) == os.getuid()
    }


def _orphans(
    root: HostRoot, paths: Paths, carriers: dict[int, tuple[str, str]], known: Collection[str]
) -> tuple[Orphan, ...]:
    processes = read_all(root)
    names = {pid: name for pid, (mark, name) in carriers.items() if mark not in known}
    for pid, name in _untitled(processes, paths, known).items():
        if owner(root, pid) == os.getuid():
            names.setdefault(pid, name)
    for leader, name in list(names.items()):
        for pid in family(processes, [leader]):
            names.setdefault(pid, name)
    looked_after = {pid for pid, (mark, _) in carriers.items() if mark in known}
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return tuple(
        _seen(root, stat, names[pid], now)
        for pid in sorted(names)
        if pid not in looked_after
        and pid != os.getpid()
        and (stat := processes.get(pid)) is not None
        and stat.alive
    )


def _untitled(
    processes: dict[int, ProcessStat], paths: Paths, known: Collection[str]
) -> dict[int, str]:
    """Those whose environment is written over, by the last record of each instance."""
    found: dict[int, str] = {}
    with contextlib.suppress(FileNotFoundError):
        for folder in paths.instance("x").parent.iterdir():
            record = exit_record(folder)
            if record.get("mark") not in known:
                found.update(dict.fromkeys(in_session(processes, record), folder.name))
    return found


def _seen(root: HostRoot, stat: ProcessStat, instance: str, now_s: float) -> Orphan:
    pus = CpuSet(pu for each in thread_affinities(root, stat.pid).values() for pu in each)
    name = "".join(char if char.isprintable() else "?" for char in stat.name)
    age_s = max(0.0, now_s - stat.started_ticks / TICKS_PER_S)
    return Orphan(stat.pid, stat.started_ticks, instance, name, pus, stat.rss_bytes, age_s)


def reap(root: HostRoot, orphans: Iterable[Orphan], *, grace_s: float) -> tuple[Orphan, ...]:
    """SIGTERM, the grace, SIGKILL; returns who is still there.

    Each is held by a pidfd that was opened first and verified by its start time after, so a
    number that has become somebody else's is never signalled.
    """
    held: dict[int, Orphan] = {}
    try:
        for orphan in orphans:
            watched = open_verified(root, orphan.pid, orphan.started_ticks)
            if watched is not None:
                held[watched] = orphan
        left = _end(held, signal.SIGTERM, grace_s)
        left = _end({watched: held[watched] for watched in left}, signal.SIGKILL, _KILLED_WITHIN_S)
        return tuple(held[watched] for watched in left)
    finally:
        for watched in held:
            os.close(watched)


def _end(held: dict[int, Orphan], number: signal.Signals, within_s: float) -> list[int]:
    """Signal all of them and wait; returns whose process has not ended."""
    poll = select.poll()
    left = set(held)
    for watched in held:
        poll.register(watched, select.POLLIN)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(watched, number)
    deadline = time.monotonic() + within_s
    while left and (remaining := deadline - time.monotonic()) > 0:
        for watched, _ in poll.poll(remaining * 1000):
            poll.unregister(watched)
            left.discard(watched)
    return sorted(left)
