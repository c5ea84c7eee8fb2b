"""Which machine a command speaks of: this one, a recorded one, hwloc's file of one, or none."""

import argparse
from pathlib import Path

from engine.core.topology import Machine
from engine.host.machine import read_machine
from engine.host.root import HostRoot


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the machine."""
    one = parser.add_mutually_exclusive_group()
    one.add_argument(
        "--root",
        metavar="DIR",
        type=Path,
        help="a recorded machine: a folder with its sys and proc, or an archive of it "
        "(`slotdeck gather` writes one)",
    )
    one.add_argument(
        "--hwloc", metavar="FILE", type=Path, help="the XML that `lstopo` wrote on a machine"
    )
    one.add_argument(
        "--synthetic",
        metavar="SPEC",
        help='a made-up machine: "pack:2 numa:2 core:8 pu:2 gpu:2*24GiB mem:64GiB"',
    )


def machine(asked: argparse.Namespace) -> Machine:
    """The machine that was asked for. Raises UsageError."""
    # Each source's own modules are only loaded for it: unpacking and XML cost a third of the
    # time that this machine's map takes.
    if asked.root is not None:
        from engine.host.archive import open_root

        with open_root(asked.root) as root:
            return read_machine(root)  # `--root /` is this machine, live
    if asked.hwloc is not None:
        from engine.host.hwloc_xml import read_hwloc

        return read_hwloc(asked.hwloc)
    if asked.synthetic is not None:
        from engine.core.synthetic import parse_synthetic

        return parse_synthetic(asked.synthetic)
    return read_machine(HostRoot())
