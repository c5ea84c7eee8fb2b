"""Which machine a command speaks of: this one, or a recorded one."""

import argparse
from pathlib import Path

from engine.core.errors import UsageError
from engine.core.topology import Machine
from engine.host.machine import read_machine
from engine.host.root import HostRoot


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the machine."""
    parser.add_argument(
        "--root", metavar="DIR", type=Path, help="read a recorded machine's /sys and /proc in DIR"
    )


def machine(asked: argparse.Namespace) -> Machine:
    """The machine that was asked for. Raises UsageError."""
    root: Path | None = asked.root
    if root is None:
        return read_machine(HostRoot())
    if not (root / "sys").is_dir():
        raise UsageError(
            what=f"{root} is not a recorded machine",
            why="it has no folder sys" if root.is_dir() else "there is no such folder",
            do="Name the folder that holds its sys and proc",
        )
    return read_machine(HostRoot(root.resolve()))  # `--root /` is this machine, live
