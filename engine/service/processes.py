"""Signals that never reach a stranger: every target is pinned by pidfd and verified first."""

import contextlib
import errno
import json
import os
import select
import signal
from pathlib import Path

from engine.host.process import family, marked, read_all, read_stat
from engine.host.root import HostRoot

MARK = "SLOTDECK_INSTANCE"
"""The variable that each process of an instance carries, with a value of its own per start."""
SHIM_MARK = "SLOTDECK_SHIM"
"""Carried with the same value by its shim, and by the engine until it is executed."""


def open_verified(root: HostRoot, pid: int, started_ticks: int) -> int | None:
    """A pidfd for exactly that process, or None when it has ended.

    The pidfd is opened first and the start time compared after: whatever has the pid then is what
    the pidfd holds. Raises OSError where it cannot be told (no file descriptors left): a process
    that cannot be looked at has not ended.
    """
    try:
        watched = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL, errno.ENOENT):
            return None
        raise
    stat = read_stat(root, pid)
    if stat is not None and stat.started_ticks == started_ticks and stat.alive:
        return watched
    try:
        if stat is None and not _has_ended(watched):
            raise OSError(errno.EIO, f"/proc/{pid}/stat cannot be read")
    finally:
        os.close(watched)
    return None


def _has_ended(watched: int) -> bool:
    poll = select.poll()
    poll.register(watched, select.POLLIN)
    return bool(poll.poll(0))


def lives(root: HostRoot, pid: int, started_ticks: int) -> bool:
    """Whether exactly that process still runs; True where it cannot be told."""
    try:
        watched = open_verified(root, pid, started_ticks)
    except OSError:
        return True
    if watched is None:
        return False
    os.close(watched)
    return True


def signal_group(root: HostRoot, leader: int, started_ticks: int, number: signal.Signals) -> bool:
    """Signal a living leader's whole process group; False when the leader has ended."""
    watched = open_verified(root, leader, started_ticks)
    if watched is None:
        return False
    try:
        # While the verified leader lives, its group number cannot belong to anybody else.
        os.killpg(leader, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(watched)
    return True


def leftovers(root: HostRoot, mark: str) -> dict[int, int]:
    """Living processes that carry an instance's mark, and their descendants: pid -> start time.

    The mark is in the environment, so it goes wherever a child goes: other sessions, other
    parents. A number alone proves nothing once the leader has been collected.
    """
    return _found(root, f"{MARK}={mark}") if mark else {}


def shims(root: HostRoot, mark: str) -> dict[int, int]:
    """The living shim of a start, with an engine that it has not yet executed."""
    return _found(root, f"{SHIM_MARK}={mark}") if mark else {}


def _found(root: HostRoot, variable: str) -> dict[int, int]:
    processes = read_all(root)
    ours = family(processes, marked(root, processes, variable))
    return {pid: processes[pid].started_ticks for pid in ours if pid != os.getpid()}


def kill_leftovers(root: HostRoot, mark: str) -> tuple[int, ...]:
    """SIGKILL to every living process of an instance; returns whom."""
    return _kill(root, leftovers(root, mark))


def kill_start(root: HostRoot, mark: str) -> None:
    """End a start that went wrong: the shim first, so that it can execute nothing after."""
    _kill(root, shims(root, mark))
    _kill(root, leftovers(root, mark))


def _kill(root: HostRoot, targets: dict[int, int]) -> tuple[int, ...]:
    killed: list[int] = []
    for pid, started_ticks in targets.items():
        watched = open_verified(root, pid, started_ticks)
        if watched is None:
            continue
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(watched, signal.SIGKILL)
            killed.append(pid)
        os.close(watched)
    return tuple(killed)


def exit_record(folder: Path, mark: str) -> dict[str, object]:
    """What the shim wrote about this start of the instance; empty when it wrote nothing."""
    try:
        record = json.loads((folder / "exit.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and record.get("mark") == mark else {}
