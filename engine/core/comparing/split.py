"""One instance or two? From one on CPUs the arms that answer it: all of its cores, or halves."""

from typing import Final

import msgspec

from engine.core.cpuset import CpuSet
from engine.core.errors import UsageError
from engine.core.layout import Instance
from engine.core.topology import Machine

WHOLE: Final = "one instance"
HALVES: Final = "two halves"


def split(wish: Instance, pus: CpuSet, machine: Machine) -> dict[str, tuple[Instance, ...]]:
    """Both arms on the same cores. Raises UsageError where there are too few."""
    cores = sorted(
        (core.pus & pus for core in machine.cores if core.pus & pus),
        key=lambda each: (_node_of(machine, each), min(each)),
    )
    if len(cores) < 2:
        raise UsageError(
            what=f"{wish.name} cannot be split",
            why="it has one core" if cores else "its cores are not known",
            do="Give it two or more, or compare another one",
        )
    middle = len(cores) // 2
    halves = [
        CpuSet(pu for core in part for pu in core) for part in (cores[:middle], cores[middle:])
    ]

    def on(name: str, where: CpuSet) -> Instance:
        return msgspec.structs.replace(
            wish, name=name, slot=f"pu:{where}", count=None, cores=None, port=None
        )

    return {
        WHOLE: (on(f"{wish.name}-whole", pus),),
        HALVES: (on(f"{wish.name}-left", halves[0]), on(f"{wish.name}-right", halves[1])),
    }


def _node_of(machine: Machine, core: CpuSet) -> int:
    """Halves of something on two NUMA nodes are those nodes."""
    return next((node.os_index for node in machine.numa_nodes if node.cpus & core), -1)
