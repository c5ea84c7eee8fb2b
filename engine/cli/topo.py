"""Draw the machine: packages, NUMA nodes, cores and their PUs, what may be used and what not."""

import argparse
import shutil
import sys
from collections.abc import Mapping

from engine.cli import sources
from engine.cli.picture import describe
from engine.cli.text import print_json
from engine.core.codec import to_builtins


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    sources.arguments(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print slotdeck.topo/1")
    how.add_argument("--ascii", action="store_true", help="draw with ASCII characters only")


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the machine."""
    machine = sources.machine(asked)
    if asked.json:
        values = to_builtins(machine)
        del values["live"]
        values["memory_bytes"] = machine.total_memory_bytes
        print_json({"schema": "slotdeck.topo/1", **values})
        return 0
    # A terminal of another encoding would not show the frames, and Python would not print them.
    plain = asked.ascii or (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    print(describe(machine, shutil.get_terminal_size().columns, ascii_only=plain))
    return 0
