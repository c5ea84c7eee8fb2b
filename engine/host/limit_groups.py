"""Limits of memory and CPU time by control groups, of version 2 or 1 (cgroups(7)).

A limited instance gets a group of its own below ours, so that whatever limits us limits it too.
Groups are made only where they are ours to make: at the top of what we see (a container, or a
machine without systemd), or in a group that was handed over to us (systemd's `Delegate=yes`, or
one that belongs to this user). In version 2 a group that shares out has no processes itself: all
that are there go into a group beside the limited ones first.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from posixpath import basename, dirname, normpath

from engine.core.limits import Limits
from engine.host.cpuset_group import remove
from engine.host.process import PAGE_BYTES
from engine.host.root import HostRoot

PREFIX = "slotdeck_"
_OURS = "slotdeck_service"
_PERIOD_US = 100_000
_ROOM = (
    "Start slotdeck in a scope of its own: `systemd-run --user --scope -p Delegate=yes slotdeck`"
)
_ROOM += " (as root without --user)"

_Files = tuple[tuple[str, str], ...]
"""Names and what to write."""


class CannotLimit(Exception):
    """Why there can be no such limit here, and what would help."""

    def __init__(self, why: str, do: str) -> None:
        super().__init__(why)
        self.why, self.do = why, do


@dataclass(frozen=True, slots=True)
class LimitGroup:
    """One group to make; names are under the root."""

    folder: str
    version: int
    controllers: tuple[str, ...] = ()
    limits: _Files = ()
    """These must take."""
    beside: _Files = ()
    """What makes an end clean where the kernel has it: no swap, all of its processes at once."""


@dataclass(frozen=True, slots=True)
class _Mount:
    place: str
    top: str
    version: int
    controllers: frozenset[str]


def groups_for(
    root: HostRoot, name: str, limits: Limits
) -> tuple[tuple[LimitGroup, ...], tuple[CannotLimit, ...]]:
    """The groups that it takes, not made yet, and the limits that cannot be kept here."""
    groups: dict[str, LimitGroup] = {}
    refused: list[CannotLimit] = []
    for controller, one in (
        ("memory", Limits(memory_bytes=limits.memory_bytes)),
        ("cpu", Limits(cpu_cores=limits.cpu_cores)),
    ):
        if not one:
            continue
        try:
            parent, version = _parent(root, controller)
        except CannotLimit as cannot:
            why = f"a limit of {one.words()[0]} cannot be set: {cannot.why}"
            refused.append(CannotLimit(why, cannot.do))
            continue
        folder = f"{parent}/{PREFIX}{name}"
        group = groups.get(folder, LimitGroup(folder, version))
        must, may = _files(one, version)
        groups[folder] = LimitGroup(
            folder,
            version,
            (*group.controllers, controller),
            (*group.limits, *must),
            (*group.beside, *may),
        )
    return tuple(groups.values()), tuple(refused)


def _files(limits: Limits, version: int) -> tuple[_Files, _Files]:
    if limits.memory_bytes is not None:
        size = str(limits.memory_bytes)
        if version == 2:
            return (("memory.max", size),), (("memory.swap.max", "0"), ("memory.oom.group", "1"))
        return (("memory.limit_in_bytes", size),), (
            ("memory.memsw.limit_in_bytes", size),
            ("memory.swappiness", "0"),
        )
    quota = round((limits.cpu_cores or 0) * _PERIOD_US)
    if version == 2:
        return (("cpu.max", f"{quota} {_PERIOD_US}"),), ()
    return (("cpu.cfs_period_us", str(_PERIOD_US)), ("cpu.cfs_quota_us", str(quota))), ()


def make(root: HostRoot, group: LimitGroup) -> None:
    """Make the group with its limits, still empty. Raises OSError with the file's name."""
    parent = dirname(group.folder)
    if group.version == 2:
        _share_out(root, parent, group.controllers)
    with contextlib.suppress(FileExistsError):
        (root.path / group.folder).mkdir()
    try:
        for file, text in group.limits:
            _write(root, f"{group.folder}/{file}", text)
    except OSError:
        remove(root, group.folder)
        raise
    for file, text in group.beside:
        with contextlib.suppress(OSError):
            _write(root, f"{group.folder}/{file}", text)


def limits_in_force(root: HostRoot, pid: int) -> Limits:
    """Those of the groups that were made for this process; none where it is in none."""
    memory: int | None = None
    cores: float | None = None
    for mount, path in _groups_of(root, str(pid)):
        head, mark, tail = f"{path}/".partition(f"/{PREFIX}")
        if not mark or f"{PREFIX}{tail}".startswith(f"{_OURS}/"):
            continue
        folder = f"{mount.place}{head}/{PREFIX}{tail.partition('/')[0]}"
        memory = memory_limit(root, folder) or memory
        cores = _cores(root, folder) or cores
    return Limits(memory, cores)


def limits_above(root: HostRoot) -> tuple[tuple[str, Limits], ...]:
    """What binds us ourselves: our groups, and those above them, that have a limit."""
    found: dict[str, Limits] = {}
    for mount, path in _groups_of(root, "self"):
        while True:
            folder = f"{mount.place}{path}".rstrip("/")
            limits = Limits(memory_limit(root, folder), _cores(root, folder))
            if limits:
                found.setdefault(folder, limits)
            above = dirname(path)
            if above == path:
                break
            path = above
    return tuple(found.items())


def memory_limit(root: HostRoot, folder: str) -> int | None:
    """Of one group in bytes; None where it has none."""
    for file in ("memory.max", "memory.limit_in_bytes"):
        text = root.text(f"{folder}/{file}") or ""
        if text.isdecimal() and int(text) < 1 << 62:  # version 1 writes its largest number
            return int(text)
    return None


def same_memory(got: int | None, asked: int) -> bool:
    """The kernel counts in whole pages."""
    return got is not None and abs(got - asked) < PAGE_BYTES


def same_cores(got: float | None, asked: float) -> bool:
    """The kernel counts in microseconds."""
    return got is not None and abs(got - asked) * _PERIOD_US < 1


def _cores(root: HostRoot, folder: str) -> float | None:
    text = root.text(f"{folder}/cpu.max") or ""
    quota, _, period = text.partition(" ")
    if not text:
        quota = root.text(f"{folder}/cpu.cfs_quota_us") or ""
        period = root.text(f"{folder}/cpu.cfs_period_us") or ""
    if quota.isdecimal() and period.isdecimal() and int(period):
        return int(quota) / int(period)
    return None


def _parent(root: HostRoot, controller: str) -> tuple[str, int]:
    """Below which folder a group with this controller may be made, and its version."""
    why = f"no control groups with the {controller} controller are mounted"
    for mount, path in _groups_of(root, "self"):
        parent = f"{mount.place}{dirname(path) if basename(path) == _OURS else path}".rstrip("/")
        if mount.version == 1 and controller not in mount.controllers:
            continue
        if mount.version == 2 and controller not in _words(root, f"{parent}/cgroup.controllers"):
            if _has(root, mount, controller):
                why = f"our control group /{parent} has no {controller} controller"
            continue
        _refuse_what_is_not_ours(root, mount, parent, controller)
        return parent, mount.version
    raise CannotLimit(why, _ROOM)


def _has(root: HostRoot, mount: _Mount, controller: str) -> bool:
    return controller in _words(root, f"{mount.place}/cgroup.controllers")


def _refuse_what_is_not_ours(root: HostRoot, mount: _Mount, parent: str, controller: str) -> None:
    path = root.path / parent
    for file in ("", "cgroup.procs", *(["cgroup.subtree_control"] if mount.version == 2 else [])):
        if not os.access(path / file, os.W_OK):
            raise CannotLimit(f"we may not write to the control group /{parent}", _ROOM)
    handed_over = parent == mount.place or _is_delegated(root, parent)
    mine = path.stat().st_uid == os.getuid() != 0
    shares = mount.version == 1 or controller in _words(root, f"{parent}/cgroup.subtree_control")
    if not handed_over and not (mine and shares):
        raise CannotLimit(
            f"the control group /{parent} is not ours: it was not handed over to us (delegated)",
            _ROOM,
        )


def _is_delegated(root: HostRoot, folder: str) -> bool:
    """As systemd marks it (systemd.resource-control(5), Delegate=)."""
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(root.path / folder, name) == b"1":
                return True
    return False


def _share_out(root: HostRoot, parent: str, controllers: tuple[str, ...]) -> None:
    """Let groups below have these controllers, and cpuset, by which a move may want to go."""
    on = _words(root, f"{parent}/cgroup.subtree_control")
    lacking = [one for one in controllers if one not in on]
    is_top = root.text(f"{parent}/cgroup.type") is None
    if lacking and not is_top:
        with contextlib.suppress(FileExistsError):
            (root.path / parent / _OURS).mkdir()
        for pid in (root.text(f"{parent}/cgroup.procs") or "").split():
            with contextlib.suppress(ProcessLookupError):  # it has ended
                _write(root, f"{parent}/{_OURS}/cgroup.procs", pid)
    for one in lacking:
        _write(root, f"{parent}/cgroup.subtree_control", f"+{one}")
    if "cpuset" in _words(root, f"{parent}/cgroup.controllers") and "cpuset" not in on:
        with contextlib.suppress(OSError):
            _write(root, f"{parent}/cgroup.subtree_control", "+cpuset")


def _groups_of(root: HostRoot, pid: str) -> Iterator[tuple[_Mount, str]]:
    """Where a process is: each mounted hierarchy and the path in it, version 1 first, because a
    controller that is bound there is not in version 2."""
    paths: dict[frozenset[str], str] = {}
    for line in (root.text(f"proc/{pid}/cgroup") or "").splitlines():
        _, told, path = (*line.split(":", 2), "", "")[:3]
        paths[frozenset(filter(None, told.split(",")))] = path
    for mount in _mounts(root):
        for names, path in paths.items():
            if names != mount.controllers & names or bool(names) != (mount.version == 1):
                continue
            if path.startswith("/.."):  # outside of our namespace
                continue
            inside = path
            if mount.top != "/":
                # In a container the path may be the host's: what is mounted is the group itself.
                inside = path[len(mount.top) :] if path.startswith(mount.top) else "/"
            yield mount, normpath(inside or "/")


def _mounts(root: HostRoot) -> list[_Mount]:
    """Lines such as `36 35 0:33 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu`."""
    found = []
    for line in (root.text("proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        words, kind = before.split(), after.split()
        if len(words) > 4 and len(kind) > 2 and kind[0] in ("cgroup", "cgroup2"):
            place = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words[4])
            version = 2 if kind[0] == "cgroup2" else 1
            controllers = frozenset(kind[2].split(",")) if version == 1 else frozenset[str]()
            found.append(_Mount(place.lstrip("/"), words[3], version, controllers))
    return sorted(found, key=lambda mount: mount.version)


def _words(root: HostRoot, name: str) -> list[str]:
    return (root.text(name) or "").split()


def _write(root: HostRoot, name: str, text: str) -> None:
    try:
        file = os.open(root.path / name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)
    except OSError as error:
        raise type(error)(error.errno, f"{error.strerror} (/{name})") from None
