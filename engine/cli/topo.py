"""Draw the machine: packages, NUMA nodes, cores and their PUs, what may be used and what not."""

import argparse
import shutil
import sys
from collections.abc import Mapping

from engine.cli import sources
from engine.cli.picture import describe
from engine.cli.text import print_json
from engine.core.codec import to_builtins
from engine.core.errors import UsageError
from engine.core.topology import Machine
from engine.host.root import HostRoot
from engine.reach import HOST_KEY
from engine.service.neighbours import strangers_on


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    sources.arguments(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print slotdeck.topo/1")
    how.add_argument("--ascii", action="store_true", help="draw with ASCII characters only")


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the machine."""
    elsewhere = HOST_KEY in environment
    machine = _there(asked, environment) if elsewhere else sources.machine(asked)
    # Of another machine nobody can be seen.
    strangers = strangers_on(HostRoot(), machine) if machine.live and not elsewhere else None
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


def _there(asked: argparse.Namespace, environment: Mapping[str, str]) -> Machine:
    """The machine of the service that --host names."""
    if asked.root or asked.hwloc or asked.synthetic:
        raise UsageError(
            what="Two machines were named",
            why="--host is one, and --root, --hwloc or --synthetic another",
            do="Leave one of them out",
        )
    import asyncio  # a third of the time that this machine's map takes

    from engine.client import connect

    async def ask() -> Machine:
        return await (await connect(environment=environment)).machine()

    return asyncio.run(ask())
