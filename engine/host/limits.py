"""What we may use: our affinity and the cpuset of our control group, of version 1 or 2."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from posixpath import normpath

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.topology import Missing
from engine.host.lists import read_list
from engine.host.root import HostRoot

_STATUS = "proc/self/status"


@dataclass(frozen=True, slots=True)
class Limits:
    """PUs and NUMA nodes that the kernel lets us use; None where nothing limits or tells."""

    pus: CpuSet | None
    nodes: NodeSet | None
    missing: tuple[Missing, ...]


@dataclass(frozen=True, slots=True)
class _Hierarchy:
    """Where a hierarchy of control groups with cpusets is mounted."""

    mounted: str
    """As a name under the root, e.g. `sys/fs/cgroup`."""
    top: str
    """The group that is seen there; `/` unless we are in a container."""
    version: int
    prefix: str
    """`cpuset.` before the files' names, or nothing with the option `noprefix`."""


# Version 1 first: a controller that is bound there is not in version 2.
_USUAL = (
    _Hierarchy("sys/fs/cgroup/cpuset", "/", 1, "cpuset."),
    _Hierarchy("sys/fs/cgroup", "/", 2, "cpuset."),
)


def read_limits(root: HostRoot) -> Limits:
    """`Cpus_allowed_list` and `Mems_allowed_list`, narrowed by our control group's cpuset.

    The kernel narrows the first two by the second itself; without /proc/self/status, as in many
    recorded machines, the cpuset alone tells.
    """
    missing: list[Missing] = []
    group = _cpuset(root)
    status = root.content(_STATUS) or ""
    sets: list[CpuSet | None] = []
    for field, narrowed, file in zip(
        ("Cpus_allowed_list", "Mems_allowed_list"), group, ("cpus", "mems"), strict=True
    ):
        told = re.search(rf"^{field}:[ \t]*([0-9,-]*)\n", status, re.MULTILINE)
        try:
            allowed = CpuSet.parse(told.group(1)) if told else None
        except ValueError:
            allowed = None
        if allowed is None:
            instead = "all" if narrowed is None else f"cpuset.{file} {narrowed}"
            missing.append(Missing(f"{_STATUS} {field}", f"not told: {instead} taken as usable"))
            sets.append(narrowed)
        elif narrowed is None or not allowed & narrowed:
            # Files of another moment or another namespace: the kernel's own word stands.
            sets.append(allowed)
        else:
            sets.append(allowed & narrowed)
    return Limits(sets[0], sets[1], tuple(missing))


def _cpuset(root: HostRoot) -> tuple[CpuSet | None, NodeSet | None]:
    """PUs and nodes of the group that we are in, None where no cpuset is in force.

    `/proc/self/cgroup` names our group in each hierarchy (cgroups(7)), on old kernels
    `/proc/self/cpuset` does.
    """
    groups = _our_groups(root)
    # Nearly always it is there; the list of all mounts of a busy host is long.
    usual = _in_force(root, groups, _USUAL) if groups else None
    found = usual or (_in_force(root, groups, _hierarchies(root)) if groups else None)
    return found or (None, None)


def _in_force(
    root: HostRoot, groups: dict[int, str], hierarchies: Iterable[_Hierarchy]
) -> tuple[CpuSet | None, NodeSet | None] | None:
    for hierarchy in hierarchies:
        group = groups.get(hierarchy.version)
        if group is None:
            continue
        inside = group[len(hierarchy.top) :] if hierarchy.top != "/" else group
        if hierarchy.top != "/" and f"{group}/".find(f"{hierarchy.top}/") != 0:
            inside = "/"  # only our own group is mounted here, under the name of another namespace
        pus = _nearest(root, hierarchy, inside, "cpus")
        nodes = _nearest(root, hierarchy, inside, "mems")
        if pus or nodes:
            return pus or None, nodes or None
    return None


def _our_groups(root: HostRoot) -> dict[int, str]:
    """Our group in the hierarchy of version 2, and in that of version 1 that has cpusets."""
    groups: dict[int, str] = {}
    for line in (root.text("proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path.startswith("/"):
            continue
        # A group outside of our namespace is written as `/../…`: we see no more than its top.
        path = "/" if path.startswith("/..") else normpath(path)
        if "cpuset" in controllers.split(","):
            groups[1] = path
        elif number == "0" and not controllers:
            groups[2] = path
    old = root.line("proc/self/cpuset") or ""
    if old.startswith("/"):
        path = "/" if old.startswith("/..") else normpath(old)
        groups.setdefault(1, path)
        groups.setdefault(2, path)
    return groups


def _hierarchies(root: HostRoot) -> list[_Hierarchy]:
    """Those that are mounted, by /proc/self/mountinfo or, on old kernels, /proc/mounts."""
    found: list[_Hierarchy] = []
    for line in (root.text("proc/self/mountinfo") or "").splitlines():
        # 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
        before, _, after = line.partition(" - ")
        words, kind = before.split(), after.split()
        if len(words) > 4 and len(kind) > 2:
            found += _hierarchy(words[4], words[3], kind[0], kind[2])
    if not found:
        mounts = root.text("proc/self/mounts") or root.text("proc/mounts") or ""
        for line in mounts.splitlines():
            words = line.split()
            if len(words) > 3:
                found += _hierarchy(words[1], "/", words[2], words[3])
    return sorted(found, key=lambda each: each.version)


def _hierarchy(mounted: str, top: str, kind: str, options: str) -> list[_Hierarchy]:
    """One in the list where cpusets may be; mount points have blanks as `\\040`."""
    place = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), mounted)
    place = normpath(place).lstrip("/")
    told = options.split(",")
    if kind == "cgroup2":
        return [_Hierarchy(place, top, 2, "cpuset.")]
    if kind == "cpuset" or (kind == "cgroup" and "cpuset" in told):
        bare = kind == "cpuset" or "noprefix" in told
        return [_Hierarchy(place, top, 1, "" if bare else "cpuset.")]
    return []


def _nearest(root: HostRoot, hierarchy: _Hierarchy, group: str, what: str) -> CpuSet | None:
    """The set in force: that of the nearest group upwards that has the controller.

    `cpuset.cpus.effective` of version 2, `cpuset.effective_cpus` of version 1, and where that is
    older than the kernel 3.17 `cpuset.cpus` (Documentation/admin-guide/cgroup-v1/cpusets.rst).
    """
    prefix = hierarchy.prefix
    names = [f"{prefix}effective_{what}", f"{prefix}{what}"]
    if hierarchy.version == 2:
        names = [f"{prefix}{what}.effective"]
    while True:
        folder = f"{hierarchy.mounted}{group}".rstrip("/")
        for name in names:
            if told := read_list(root, f"{folder}/{name}"):
                return told
        if group == "/":
            return None
        group = group.rpartition("/")[0] or "/"
