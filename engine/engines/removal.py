"""Removes engines, and older environments of one; never what a process runs in."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from engine.core.errors import ControlError
from engine.engines.environments import delete, home_of, locked, remains, size_of
from engine.engines.users import users_of
from engine.host.root import HostRoot


def remove(engine: str, data: Path, *, root: HostRoot, wished_by: Sequence[str] = ()) -> int:
    """Delete an engine's folder; returns the bytes that were freed, 0 where there was nothing.

    `wished_by` are instances that are to run it, whether or not they do at this moment.
    """
    home = home_of(engine, data)
    if not home.is_dir():
        return 0
    with locked(home):
        using = users_of(root, home)
        if wished_by or using:
            names = ", ".join(wished_by)
            pids = ", ".join(f"{pid} ({name})" for pid, name in using.items())
            raise ControlError(
                what=f"{engine} is in use",
                why="; ".join(
                    [f"instance {names}"] * bool(names) + [f"process {pids}"] * bool(pids)
                ),
                do=f"Stop it first: slotdeck down {' '.join(wished_by) or '--all'}",
            )
        gone = home.with_name(f".{engine}.removing")
        shutil.rmtree(gone, ignore_errors=True)
        freed = size_of(home)
        # Renamed first: a removal that is cut short leaves nothing that looks installed.
        home.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    return freed


def drop_unused(engine: str, data: Path) -> None:
    """Delete older environments that no process runs in."""
    for one in remains(engine, data):
        if one.is_dir() and not users_of(HostRoot(), one):
            delete(one)
