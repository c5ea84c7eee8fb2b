"""Who uses an engine's environment now: every process that runs its Python or loaded its files."""

import os
from pathlib import Path

from engine.host.root import HostRoot


def users_of(root: HostRoot, folder: Path) -> dict[int, str]:
    """Living processes by pid, each with its name.

    The command line tells of one that has just started, the mapped files (/proc/PID/maps) of one
    that has given itself another title. What another user runs is not seen, and could not have
    entered a folder with mode 0700.
    """
    start = f"{folder}/"
    found: dict[int, str] = {}
    for name in root.names("proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        words = (root.content(f"proc/{name}/cmdline") or "").split("\0")
        if any(word.startswith(start) for word in words) or _maps(root, name, start):
            found[int(name)] = root.text(f"proc/{name}/comm") or "?"
    return found


def _maps(root: HostRoot, pid: str, start: str) -> bool:
    # Each line ends with the file's path, which begins after a space.
    return f" {start}" in (root.content(f"proc/{pid}/maps") or "")
