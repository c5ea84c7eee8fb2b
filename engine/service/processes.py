"""Signals that never reach a stranger: every target is pinned by pidfd and verified first."""

import contextlib
import errno
import json
import os
import select
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path

from engine.host.process import ProcessStat, family, marked, read_all, read_stat
from engine.host.root import HostRoot

MARK = "SLOTDECK_INSTANCE"
"""The variable that each process of an instance carries, with a value of its own per start."""
FOLDER = "SLOTDECK_FOLDER"
"""Beside the mark: the folder of its log, which tells whose it is where the journal is lost."""
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


def leftovers(root: HostRoot, mark: str, folder: Path | None = None) -> dict[int, int]:
    """Living processes of a start of an instance: pid -> start time.

    The mark is in the environment, so it goes wherever a child goes: other sessions, other
    parents. But a process that gives itself a title writes it over its environment, as vLLM's
    workers do (`VLLM::EngineCore`). With the folder of its record they are found by its session.
    """
    if not mark:
        return {}
    processes = read_all(root)
    carriers = marked(root, processes, f"{MARK}={mark}")
    session = in_session(processes, exit_record(folder, mark)) if folder else ()
    return _with_descendants(processes, (*carriers, *session))


def in_session(processes: dict[int, ProcessStat], record: Mapping[str, object]) -> tuple[int, ...]:
    """Who is in the session of an engine, by what its shim has recorded.

    A number alone proves nothing once the leader has been collected: it may be a stranger's by
    then. But that one's session began after the leader had ended.
    """
    leader, started_ticks = record.get("pid"), record.get("started_ticks")
    ended_ticks = record.get("ended_ticks")
    if not isinstance(leader, int) or leader <= 0:
        return ()
    stat = processes.get(leader)
    if stat is not None and stat.started_ticks == started_ticks:
        return (leader,)
    if not isinstance(ended_ticks, int):
        return ()
    return tuple(
        each.pid
        for each in processes.values()
        if each.session == leader and each.started_ticks <= ended_ticks
    )


def shims(root: HostRoot, mark: str) -> dict[int, int]:
    """The living shim of a start, with an engine that it has not yet executed."""
    return _found(root, f"{SHIM_MARK}={mark}") if mark else {}


def _found(root: HostRoot, variable: str) -> dict[int, int]:
    processes = read_all(root)
    return _with_descendants(processes, marked(root, processes, variable))


def _with_descendants(processes: dict[int, ProcessStat], leaders: Iterable[int]) -> dict[int, int]:
    ours = family(processes, leaders)
    return {pid: processes[pid].started_ticks for pid in ours if pid != os.getpid()}


def kill_leftovers(root: HostRoot, mark: str, folder: Path | None = None) -> tuple[int, ...]:
    """SIGKILL to every living process of an instance; returns whom."""
    return _kill(root, leftovers(root, mark, folder))


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


def exit_record(folder: Path, mark: str | None = None) -> dict[str, object]:
    """What the shim wrote about this start of the instance, or without a mark about the last one;
    empty when it wrote nothing."""
    try:
        record = json.loads((folder / "exit.json").read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(record, dict) or (mark is not None and record.get("mark") != mark):
        return {}
    return record
