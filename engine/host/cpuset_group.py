"""Another process's memory policy, changed through a cpuset of its own (cpuset(7)).

Only a thread itself can call set_mempolicy(2). But when the nodes of a cpuset change, the kernel
rewrites the policies of all threads in it, and moves their pages after. In version 2 of control
groups a process is put into a *threaded* child of its own group, where it keeps all other limits
and accounts; in version 1 cpusets have a hierarchy of their own, and the others are not touched.
It stays there until it ends: on the way out its policy would be rewritten once more.
"""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Sequence
from posixpath import basename, dirname

from engine.core.cpuset import NodeSet
from engine.host.root import HostRoot

_TOP, _TOP_1 = "sys/fs/cgroup", "sys/fs/cgroup/cpuset"
"""Of version 2, and of the cpusets of version 1."""
_PREFIX = "slotdeck-"
_THREADED = {"cpuset", "cpu", "perf_event", "pids"}
"""Controllers that may be on beside processes (Documentation/admin-guide/cgroup-v2, Threads)."""
_PASSES = 50


def why_not_rebound(root: HostRoot, pid: int, was: NodeSet, to: NodeSet) -> str:
    """Why a process's policy cannot be changed from `was` to `to`; empty when it can be."""
    found = _parent_of(root, pid)
    if found is None:
        return "its control group lies outside of what we see"
    top, group = found
    folder = f"{top}{group}".rstrip("/")
    if root.text(f"{top}/{'cgroup.controllers' if top == _TOP else 'cpuset.mems'}") is None:
        return "this kernel has no cpusets mounted (/sys/fs/cgroup)"
    if top == _TOP and (why := _why_not_threaded(root, folder, group)):
        return why
    for name in ("", "/cgroup.procs", *(["/cgroup.subtree_control"] if top == _TOP else [])):
        if not os.access(f"{root.path}/{folder}{name}", os.W_OK):
            return f"we may not write to its control group {group}"
    allowed = _allowed_nodes(root, pid)
    if remapped(was, allowed, to) != to:
        return f"the kernel would turn its nodes {was} into {remapped(was, allowed, to)}"
    return ""


def _why_not_threaded(root: HostRoot, folder: str, group: str) -> str:
    if "cpuset" not in (root.text(f"{folder}/cgroup.controllers") or "").split():
        return f"its control group {group} has no cpuset controller (systemd: Delegate=cpuset)"
    children = set((root.text(f"{folder}/cgroup.subtree_control") or "").split())
    is_top = root.text(f"{folder}/cgroup.type") is None
    if not is_top and not children <= _THREADED:
        others = ", ".join(sorted(children - _THREADED))
        return f"its control group {group} shares out more than CPUs ({others})"
    return ""


def remapped(nodes: NodeSet, old: NodeSet, new: NodeSet) -> NodeSet:
    """What the kernel makes of a policy's nodes when those of its cpuset change (nodes_remap)."""
    places = {node: place for place, node in enumerate(old)}
    targets = list(new)
    return NodeSet(
        targets[places[node] % len(targets)] if node in places else node for node in nodes
    )


def folder_for(root: HostRoot, pid: int, name: str) -> str:
    """Of the group that `confine` makes for a process, there already or not. Raises OSError."""
    found = _parent_of(root, pid)
    if found is None:
        raise OSError(errno.ENOENT, "its control group lies outside of what we see")
    top, group = found
    return f"{top}{group}".rstrip("/") + f"/{_PREFIX}{name}"


def confine(root: HostRoot, processes: Callable[[], Sequence[int]], name: str) -> str:
    """Put processes, and those that they make meanwhile, into a group of their own.

    Returns its folder. Until it is told its nodes it has all of its parent's. The affinity of the
    threads may be lost on the way, as older kernels do. Raises OSError.
    """
    folder = folder_for(root, processes()[0], name)
    is_old = folder.startswith(f"{_TOP_1}/")
    parent = dirname(folder)
    if (
        not is_old
        and "cpuset" not in (root.text(f"{parent}/cgroup.subtree_control") or "").split()
    ):
        _write(root, f"{parent}/cgroup.subtree_control", "+cpuset")
    with contextlib.suppress(FileExistsError):
        (root.path / folder).mkdir()
        if is_old:  # which begins with nothing, and takes nobody in so
            for file in ("cpuset.cpus", "cpuset.mems"):
                _write(root, f"{folder}/{file}", root.text(f"{parent}/{file}") or "")
            _write(root, f"{folder}/cpuset.memory_migrate", "1")
        else:
            _write(root, f"{folder}/cgroup.type", "threaded")
    for _ in range(_PASSES):
        told = root.text(f"{folder}/{'tasks' if is_old else 'cgroup.threads'}") or ""
        inside = set(told.split())
        missing = [pid for pid in processes() if str(pid) not in inside]
        if not missing:
            break
        for pid in missing:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                _write(root, f"{folder}/cgroup.procs", str(pid))
    return folder


def widen(root: HostRoot, folder: str, nodes: NodeSet) -> None:
    """Let processes that were told their nodes have these as well, so that pages may go there.

    What is on their own nodes stays. Raises OSError.
    """
    if own := NodeSet.parse(root.text(f"{folder}/cpuset.mems") or ""):
        _write(root, f"{folder}/cpuset.mems", str(own | nodes))


def set_nodes(root: HostRoot, folder: str, nodes: NodeSet) -> None:
    """Rewrite the policies inside to these nodes; what is elsewhere is moved. Raises OSError."""
    _write(root, f"{folder}/cpuset.mems", str(nodes))


def remove(root: HostRoot, folder: str) -> None:
    """Take an empty group away; whoever is still inside keeps it."""
    with contextlib.suppress(OSError):
        (root.path / folder).rmdir()


def _parent_of(root: HostRoot, pid: int) -> tuple[str, str] | None:
    """Where cpusets are, and the group in it that the process is in, or its parent where that is
    one of ours."""
    told = root.text(f"proc/{pid}/cgroup") or ""
    # A controller that is bound to version 1 is not in version 2.
    for top, line in (
        (_TOP_1, r"^[0-9]+:(?:[^:]*,)?cpuset(?:,[^:]*)?:(/.*)$"),
        (_TOP, r"^0::(/.*)$"),
    ):
        if found := re.search(line, told, re.MULTILINE):
            group = found.group(1)
            if group.startswith("/.."):
                return None
            return top, dirname(group) if basename(group).startswith(_PREFIX) else group
    return None


def _allowed_nodes(root: HostRoot, pid: int) -> NodeSet:
    status = root.text(f"proc/{pid}/status") or ""
    line = re.search(r"^Mems_allowed_list:[ \t]*([0-9,-]+)$", status, re.MULTILINE)
    return NodeSet.parse(line.group(1)) if line else NodeSet()


def _write(root: HostRoot, name: str, text: str) -> None:
    file = os.open(root.path / name, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)
