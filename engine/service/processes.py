"""Signals that never reach a stranger: every target is pinned by pidfd and verified first."""

import json
import os
import signal
from pathlib import Path

from engine.host.process import family, marked, read_all, read_stat
from engine.host.root import HostRoot

MARK = "SLOTDECK_INSTANCE"
"""The variable that each process of an instance carries, with a value of its own per start."""


def open_verified(root: HostRoot, pid: int, started_ticks: int) -> int | None:
    """A pidfd for exactly that process, or None when it has ended.

    The pidfd is opened first and the start time compared after: whatever has the pid then is what
    the pidfd holds.
    """
    try:
        watched = os.pidfd_open(pid)
    except OSError:
        return None
    stat = read_stat(root, pid)
    if stat is None or stat.started_ticks != started_ticks or not stat.alive:
        os.close(watched)
        return None
    return watched


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
    processes = read_all(root)
    ours = family(processes, marked(root, processes, f"{MARK}={mark}"))
    return {pid: processes[pid].started_ticks for pid in ours if pid != os.getpid()}


def kill_leftovers(root: HostRoot, mark: str) -> tuple[int, ...]:
    """SIGKILL to every living process of an instance; returns whom."""
    killed: list[int] = []
    for pid, started_ticks in leftovers(root, mark).items():
        watched = open_verified(root, pid, started_ticks)
        if watched is None:
            continue
        try:
            signal.pidfd_send_signal(watched, signal.SIGKILL)
            killed.append(pid)
        except ProcessLookupError:
            pass
        finally:
            os.close(watched)
    return tuple(killed)


def exit_record(folder: Path, mark: str) -> dict[str, object]:
    """What the shim wrote about this start of the instance; empty when it wrote nothing."""
    try:
        record = json.loads((folder / "exit.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and record.get("mark") == mark else {}
