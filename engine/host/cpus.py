"""PUs, cores and packages from /sys/devices/system/cpu (Documentation/admin-guide/cputopology)."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from engine.core.cpuset import CpuSet
from engine.core.topology import Missing
from engine.host.lists import numbered, read_index, read_list, read_set
from engine.host.root import HostRoot

FOLDER = "sys/devices/system/cpu"

# Names of newer and older kernels for the same sets, the one that every kernel has first.
_CORE_FILES = ("thread_siblings_list", "core_cpus_list", "thread_siblings", "core_cpus")
_PACKAGE_FILES = ("core_siblings_list", "package_cpus_list", "core_siblings", "package_cpus")
_MOST_PUS = 8192
"""The largest CONFIG_NR_CPUS: a longer list of PUs without a folder is garbage."""


@dataclass(frozen=True, slots=True)
class CoreFacts:
    """One core as the kernel tells it."""

    package: int | None
    core_id: int | None
    """Unique only within a package or a part of one, so it identifies nothing."""
    pus: CpuSet


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """What /sys/devices/system/cpu says, and what it does not."""

    online: CpuSet
    offline: CpuSet
    cores: tuple[CoreFacts, ...]
    missing: tuple[Missing, ...]


def read_cpus(root: HostRoot) -> CpuFacts:
    """Read `online`, `present` and each `cpuN/topology`."""
    missing: list[Missing] = []
    folders = CpuSet(numbered(root.names(FOLDER), "cpu"))
    online = _online(root, folders, missing)
    present = read_list(root, f"{FOLDER}/present")
    offline = folders - online
    if present:
        # On some architectures what might be plugged in one day has a folder, too.
        offline = offline & present
    told = {pu: _siblings(root, pu, online) for pu in online}
    groups = _groups(root, told, online, missing)
    cores = [_core(root, pus) for pus in sorted(groups, key=min)]
    return CpuFacts(online, offline, tuple(_with_packages(root, cores, missing)), tuple(missing))


def _online(root: HostRoot, folders: CpuSet, missing: list[Missing]) -> CpuSet:
    """`online`; where each PU has a folder of its own, what that says corrects the list."""
    listed = read_list(root, f"{FOLDER}/online")
    if not listed:
        missing.append(Missing(f"{FOLDER}/online", "no readable list; asked each PU instead"))
        return CpuSet(pu for pu in folders if _is_online(root, pu))
    if not folders:
        few = CpuSet(pu for pu in listed if pu < _MOST_PUS)
        missing.append(Missing(f"{FOLDER}/cpu*", "no folder of any PU: only their numbers known"))
        return few
    if strangers := listed - folders:
        why = f"names PU {strangers}, which the kernel shows nowhere else: not taken"
        missing.append(Missing(f"{FOLDER}/online", why))
    if hidden := CpuSet(pu for pu in folders - listed if _is_online(root, pu)):
        # A container's view (lxcfs) may cover the list and not the folders.
        why = f"lacks PU {hidden}, which say of themselves that they are: taken as online"
        missing.append(Missing(f"{FOLDER}/online", why))
    return listed & folders | hidden


def _is_online(root: HostRoot, pu: int) -> bool:
    """By `cpuN/online`, which a PU that cannot go offline does not have, else by its topology."""
    told = root.line(f"{FOLDER}/cpu{pu}/online")
    return told == "1" if told in ("0", "1") else bool(root.names(f"{FOLDER}/cpu{pu}/topology"))


def _siblings(root: HostRoot, pu: int, online: CpuSet) -> CpuSet | None:
    """The online PUs of this one's core, as this one tells; None where it does not."""
    folder = f"{FOLDER}/cpu{pu}/topology/"
    for name in _CORE_FILES:
        told = read_set(root, folder + name)
        if told and pu in told:
            return told & online
    return None


def _groups(
    root: HostRoot, told: dict[int, CpuSet | None], online: CpuSet, missing: list[Missing]
) -> list[CpuSet]:
    """Every online PU in one core: the sets that all their members tell, then the likeliest."""
    if disputed := _disputed(told):
        for pu in disputed:
            told[pu] = _majority(root, pu, online) or told[pu]
    contested = _disputed(told)
    votes = Counter(pus for pus in told.values() if pus is not None)
    groups = [pus for pus in votes if not pus & contested]
    usual = Counter(map(len, groups)).most_common(1)
    size = usual[0][0] if usual else 0

    def likeness(pus: CpuSet) -> tuple[bool, int, int]:
        denials = sum(1 for pu in pus if told[pu] not in (None, pus))
        return len(pus) == size, votes[pus] - denials, len(pus)

    left = contested | CpuSet(pu for pu in told if told[pu] is None)
    for pus in groups:
        left = left - pus
    for pus in sorted((each for each in votes if each & contested), key=likeness, reverse=True):
        if pus <= left:
            groups.append(pus)
            left = left - pus
    groups += [CpuSet([pu]) for pu in left]
    final = {pu: pus for pus in groups for pu in pus}
    for pu, said in told.items():
        what = f"{FOLDER}/cpu{pu}/topology/thread_siblings_list"
        if said is None and len(final[pu]) == 1:
            missing.append(Missing(what, "not told: taken as a core of one PU"))
        elif said is not None and said != final[pu]:
            why = f"{said} contradicts what its siblings tell: taken as {final[pu]}"
            missing.append(Missing(what, why))
    return groups


def _disputed(told: dict[int, CpuSet | None]) -> CpuSet:
    """The PUs of all sets that overlap another one."""
    claims: dict[int, set[CpuSet]] = {}
    for pus in set(told.values()):
        for pu in pus or ():
            claims.setdefault(pu, set()).add(pus or CpuSet())
    return CpuSet(
        pu for sets in claims.values() if len(sets) > 1 for pus in sets for pu in pus if pu in told
    )


def _majority(root: HostRoot, pu: int, online: CpuSet) -> CpuSet | None:
    """What most of the files for the same set tell."""
    folder = f"{FOLDER}/cpu{pu}/topology/"
    sets = [read_set(root, folder + name) for name in _CORE_FILES]
    votes = Counter(each & online for each in sets if each is not None and pu in each)
    return votes.most_common(1)[0][0] if votes else None


def _core(root: HostRoot, pus: CpuSet) -> CoreFacts:
    return CoreFacts(
        package=_first_index(root, pus, "physical_package_id"),
        core_id=_first_index(root, pus, "core_id"),
        pus=pus,
    )


def _first_index(root: HostRoot, pus: Iterable[int], name: str) -> int | None:
    """What the first of a core's PUs tells that tells anything."""
    told = (read_index(root, f"{FOLDER}/cpu{pu}/topology/{name}") for pu in pus)
    return next((index for index in told if index is not None), None)


def _with_packages(
    root: HostRoot, cores: list[CoreFacts], missing: list[Missing]
) -> list[CoreFacts]:
    """Cores without a package number take that of the PUs listed as being in their package.

    Without that, and without a number of their own, they are told as missing.
    """
    for core in cores:
        if core.core_id is None:
            what = f"{FOLDER}/cpu{min(core.pus)}/topology/core_id"
            missing.append(Missing(what, "the kernel does not tell"))
    package_of = {pu: core.package for core in cores for pu in core.pus}
    for index, core in enumerate(cores):
        if core.package is not None:
            continue
        folder = f"{FOLDER}/cpu{min(core.pus)}/topology/"
        mates = read_set(root, *(folder + name for name in _PACKAGE_FILES)) or CpuSet()
        packages = {package_of[pu] for pu in mates if package_of.get(pu) is not None}
        if len(packages) == 1:
            cores[index] = CoreFacts(packages.pop(), core.core_id, core.pus)
        else:
            why = "the kernel does not tell"
            missing.append(Missing(f"{folder}physical_package_id", why))
    return cores
