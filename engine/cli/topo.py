"""Draw the machine: packages, NUMA nodes, cores and their PUs, what may be used and what not."""

import argparse
import os
import shutil
import sys
from collections.abc import Mapping

from engine.cli import sources
from engine.cli.picture import describe
from engine.cli.text import print_json
from engine.core.codec import to_builtins
from engine.core.strangers import Stranger
from engine.core.topology import Machine
from engine.host.root import HostRoot


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    sources.arguments(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print slotdeck.topo/1")
    how.add_argument("--ascii", action="store_true", help="draw with ASCII characters only")


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the machine."""
    machine = sources.machine(asked)
    strangers = _strangers(machine)
    if asked.json:
        values = to_builtins(machine)
        del values["live"]
        values["memory_bytes"] = machine.total_memory_bytes
        if strangers is not None:
            values["strangers"] = to_builtins(strangers)
        for core in values["cores"]:
            # All cores have it or none: most machines prefer no core to another.
            if core["highest_perf"] is None:
                del core["highest_perf"]
        print_json({"schema": "slotdeck.topo/1", **values})
        return 0
    # A terminal of another encoding would not show the frames, and Python would not print them.
    plain = asked.ascii or (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    columns = shutil.get_terminal_size().columns
    print(describe(machine, columns, ascii_only=plain, strangers=strangers or ()))
    return 0


def _strangers(machine: Machine) -> tuple[Stranger, ...] | None:
    """Who else is pinned on this machine; None of another one, on which nobody can be seen."""
    if not machine.live:
        return None
    from engine.host.process import marks
    from engine.host.strangers import read_strangers
    from engine.service.processes import MARK

    root = HostRoot()
    ours = [pid for pid in marks(root, MARK) if _is_ours(root, pid)]
    return read_strangers(root, ours, machine)


def _is_ours(root: HostRoot, pid: int) -> bool:
    """Root may look into everybody's environment, and another user's engines are strangers."""
    try:
        return (root.path / f"proc/{pid}").stat().st_uid == os.getuid()
    except OSError:  # it has ended
        return False
