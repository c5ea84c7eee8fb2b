"""Record this machine's topology in a file, for a bug report, a test, or planning elsewhere.

The archive holds only what slotdeck itself reads of /sys and /proc: no serial numbers, no
network addresses, no host name, no environment, no command lines.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from engine.cli.text import print_json
from engine.host.archive import open_root
from engine.host.gather import Gathered, gather
from engine.host.root import HostRoot


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("file", metavar="FILE.tar.gz", type=Path, help="the file to write")
    parser.add_argument(
        "--root", metavar="DIR", type=Path, help="record again from a recorded machine"
    )
    parser.add_argument("--json", action="store_true", help="print slotdeck.gather/1")


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Write the record and say what is in it."""
    if asked.root is None:
        done = gather(HostRoot(), asked.file)
    else:
        with open_root(asked.root) as root:
            done = gather(root, asked.file)
    if asked.json:
        print_json(
            {
                "schema": "slotdeck.gather/1",
                "file": str(done.path),
                "size_bytes": done.size_bytes,
                "entries": done.entries,
                "left_out": list(done.left_out),
                "differences": list(done.differences),
            }
        )
    else:
        print(describe(done))
    return 1 if done.differences else 0


def describe(done: Gathered) -> str:
    """The record in lines."""
    machine = done.machine
    lines = [
        f"{done.path}: {done.size_bytes / 1024:.0f} KiB, {done.entries} entries: "
        f"{len(machine.packages)} packages, {len(machine.numa_nodes)} NUMA nodes, "
        f"{len(machine.cores)} cores, {len(machine.gpus)} GPUs",
        f"Look into it with `tar tzf {done.path}`; plan on it with `slotdeck topo --root`.",
    ]
    lines += [f"left out as private: {name}" for name in done.left_out]
    lines += [f"WRONG: {field} reads otherwise from the record" for field in done.differences]
    return "\n".join(lines)
