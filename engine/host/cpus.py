"""PUs, cores and packages from /sys/devices/system/cpu (Documentation/admin-guide/cputopology)."""

import re
from dataclasses import dataclass

from engine.core.cpuset import CpuSet
from engine.core.topology import Missing
from engine.host.lists import read_index, read_list, read_mask
from engine.host.root import HostRoot

FOLDER = "sys/devices/system/cpu"


@dataclass(frozen=True, slots=True)
class CoreFacts:
    """One core as the kernel tells it."""

    package: int | None
    core_id: int | None
    pus: CpuSet
    kind: str | None
    """performance, efficiency, or None where the kernel makes no difference."""


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """What /sys/devices/system/cpu says, and what it does not."""

    online: CpuSet
    offline: CpuSet
    cores: tuple[CoreFacts, ...]
    missing: tuple[Missing, ...]


def read_cpus(root: HostRoot) -> CpuFacts:
    """Read `online`, `present`/`possible` and each `cpuN/topology`."""
    missing: list[Missing] = []
    present = CpuSet(
        int(match.group(1))
        for name in root.names(FOLDER)
        if (match := re.fullmatch(r"cpu([0-9]{1,6})", name))
    )
    online = read_list(root, f"{FOLDER}/online")
    if online is None:
        # Old kernels have no `online` list; a PU with a topology folder is online.
        online = CpuSet(
            pu
            for pu in present
            if root.names(f"{FOLDER}/cpu{pu}/topology")
            or root.text(f"{FOLDER}/cpu{pu}/online") == "1"
        )
        missing.append(Missing(f"{FOLDER}/online", "no readable list; asked each PU instead"))
    hybrid = {
        "performance": read_list(root, "sys/devices/cpu_core/cpus") or CpuSet(),
        "efficiency": read_list(root, "sys/devices/cpu_atom/cpus") or CpuSet(),
    }
    cores: dict[CpuSet, CoreFacts] = {}
    seen: set[int] = set()
    for pu in online:
        if pu in seen:
            continue
        folder = f"{FOLDER}/cpu{pu}/topology"
        siblings = (
            read_list(root, f"{folder}/thread_siblings_list")
            or read_list(root, f"{folder}/core_cpus_list")
            or read_mask(root, f"{folder}/thread_siblings")
        )
        if siblings is None or pu not in siblings:
            missing.append(Missing(f"{folder}/thread_siblings_list", "taken as a core of one PU"))
            siblings = CpuSet([pu])
        siblings = (siblings & online) - CpuSet(seen)
        seen.update(siblings.pus)
        package = read_index(root, f"{folder}/physical_package_id")
        if package is None:
            missing.append(Missing(f"{folder}/physical_package_id", "the kernel does not tell"))
        core_id = read_index(root, f"{folder}/core_id")
        cores[siblings] = CoreFacts(package, core_id, siblings, _kind(siblings, hybrid))
    return CpuFacts(online, present - online, tuple(cores.values()), tuple(missing))


def _kind(pus: CpuSet, hybrid: dict[str, CpuSet]) -> str | None:
    return next((kind for kind, members in hybrid.items() if pus & members), None)
