"""Another process's memory policy, changed through a cpuset of its own (cgroup v2, cpuset(7)).

Only a thread itself can call set_mempolicy(2). But when the nodes of a cpuset change, the kernel
rewrites the policies of all threads in it, and moves their pages after. A process that is put into
a *threaded* child of its own control group keeps all other limits and accounts. It stays there
until it ends: on the way out its policy would be rewritten once more.
"""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Sequence
from posixpath import basename, dirname

from engine.core.cpuset import NodeSet
from engine.host.root import HostRoot

_TOP = "sys/fs/cgroup"
_PREFIX = "slotdeck-"
_THREADED = {"cpuset", "cpu", "perf_event", "pids"}
"""Controllers that may be on beside processes (Documentation/admin-guide/cgroup-v2, Threads)."""
_PASSES = 50


def why_not_rebound(root: HostRoot, pid: int, was: NodeSet, to: NodeSet) -> str:
    """Why a process's policy cannot be changed from `was` to `to`; empty when it can be."""
    if not root.names(_TOP) or root.text(f"{_TOP}/cgroup.controllers") is None:
        return "this kernel has no cgroup v2 with cpusets mounted"
    group = _parent_of(root, pid)
    if group is None:
        return "its control group lies outside of what we see"
    folder = f"{_TOP}{group}".rstrip("/")
    if "cpuset" not in (root.text(f"{folder}/cgroup.controllers") or "").split():
        return f"its control group {group} has no cpuset controller (systemd: Delegate=cpuset)"
    for name in ("", "/cgroup.procs", "/cgroup.subtree_control"):
        if not os.access(f"{root.path}/{folder}{name}", os.W_OK):
            return f"we may not write to its control group {group}"
    children = set((root.text(f"{folder}/cgroup.subtree_control") or "").split())
    is_top = root.text(f"{folder}/cgroup.type") is None
    if not is_top and not children <= _THREADED:
        return f"its control group {group} shares out more than CPUs"
    allowed = _allowed_nodes(root, pid)
    if remapped(was, allowed, to) != to:
        return f"the kernel would turn its nodes {was} into {remapped(was, allowed, to)}"
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
    group = _parent_of(root, pid)
    if group is None:
        raise OSError(errno.ENOENT, "its control group lies outside of what we see")
    return f"{_TOP}{group}".rstrip("/") + f"/{_PREFIX}{name}"


def confine(root: HostRoot, processes: Callable[[], Sequence[int]], name: str) -> str:
    """Put processes, and those that they make meanwhile, into a group of their own.

    Returns its folder. Until it is told its nodes it has all of its parent's. The affinity of the
    threads may be lost on the way, as older kernels do. Raises OSError.
    """
    folder = folder_for(root, processes()[0], name)
    parent = dirname(folder)
    if "cpuset" not in (root.text(f"{parent}/cgroup.subtree_control") or "").split():
        _write(root, f"{parent}/cgroup.subtree_control", "+cpuset")
    with contextlib.suppress(FileExistsError):
        (root.path / folder).mkdir()
        _write(root, f"{folder}/cgroup.type", "threaded")
    for _ in range(_PASSES):
        inside = set((root.text(f"{folder}/cgroup.threads") or "").split())
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


def _parent_of(root: HostRoot, pid: int) -> str | None:
    """The group that it is in, or its parent where that is one of ours."""
    line = re.search(r"^0::(/.*)$", root.text(f"proc/{pid}/cgroup") or "", re.MULTILINE)
    if line is None or line.group(1).startswith("/.."):
        return None
    group = line.group(1)
    return dirname(group) if basename(group).startswith(_PREFIX) else group


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
