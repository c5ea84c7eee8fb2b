"""Who and what is beside our instances on this machine: strangers, listeners, free memory."""

import os
from collections.abc import Collection

from engine.core.strangers import Stranger
from engine.core.topology import Machine
from engine.host.node_memory import read_node_memory
from engine.host.ports import listeners
from engine.host.process import marks, open_files, read_all
from engine.host.root import HostRoot
from engine.host.strangers import read_strangers
from engine.service.processes import MARK


def strangers_on(root: HostRoot, machine: Machine) -> tuple[Stranger, ...]:
    """Programs that hold PUs or GPUs and are no instance of this user's."""
    processes = read_all(root)
    ours = [pid for pid in marks(root, MARK, processes) if _is_ours(root, pid)]
    return read_strangers(root, ours, machine, processes)


def listener_on(root: HostRoot, port: int, *, but: Collection[int] = ()) -> str:
    """Who listens on a port, in words; empty where nobody does, or a process of `but`."""
    inodes = listeners(root).get(port)
    if inodes is None:
        return ""
    sockets = {f"socket:[{inode}]" for inode in inodes}
    found = {
        pid: stat
        for pid, stat in read_all(root).items()
        if not sockets.isdisjoint((open_files(root, pid) or {}).values())
    }
    if any(pid in found for pid in but):
        return ""
    for pid, stat in found.items():
        name = "".join(char if char.isprintable() else "?" for char in stat.name)
        return f"{name} (pid {pid})"
    return "somebody"


def free_memory(root: HostRoot) -> dict[int, int]:
    """Bytes that a program can have now, by NUMA node; nothing on a kernel without NUMA."""
    return {
        node: memory.available_bytes
        for node, memory in read_node_memory(root).items()
        if node is not None
    }


def _is_ours(root: HostRoot, pid: int) -> bool:
    """Root may look into everybody's environment, and another user's engines are strangers."""
    try:
        return (root.path / f"proc/{pid}").stat().st_uid == os.getuid()
    except OSError:  # it has ended
        return False
