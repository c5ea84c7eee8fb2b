"""PUs, cores and packages from /sys/devices/system/cpu (Documentation/admin-guide/cputopology)."""

import re
from dataclasses import dataclass

from engine.core.cpuset import CpuSet
from engine.core.topology import Missing
from engine.host.root import HostRoot

FOLDER = "sys/devices/system/cpu"


@dataclass(frozen=True, slots=True)
class CoreFacts:
    """One core as the kernel tells it."""

    package: int | None
    core_id: int | None
    pus: CpuSet


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
        if (match := re.fullmatch(r"cpu(\d+)", name))
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
    cores: dict[CpuSet, CoreFacts] = {}
    seen: set[int] = set()
    for pu in online:
        if pu in seen:
            continue
        folder = f"{FOLDER}/cpu{pu}/topology"
        siblings = read_list(root, f"{folder}/thread_siblings_list") or read_list(
            root, f"{folder}/core_cpus_list"
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
        cores[siblings] = CoreFacts(package, core_id, siblings)
    return CpuFacts(online, present - online, tuple(cores.values()), tuple(missing))


def read_list(root: HostRoot, name: str) -> CpuSet | None:
    """A kernel list file; None where it is absent or not a list."""
    text = root.text(name)
    if text is None:
        return None
    try:
        return CpuSet.parse(text)
    except ValueError:
        return None


def read_index(root: HostRoot, name: str) -> int | None:
    """A number; the kernel writes -1 (old ones 65535) for "not told", which is None here."""
    text = root.text(name)
    if text is None or not text.isascii() or not text.isdigit():
        return None
    return None if int(text) == 65535 else int(text)
