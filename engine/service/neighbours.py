"""Who and what is beside our instances on this machine: strangers, and memory that is free now."""

import os

from engine.core.strangers import Stranger
from engine.core.topology import Machine
from engine.host.node_memory import read_node_memory
from engine.host.process import marks, read_all
from engine.host.root import HostRoot
from engine.host.strangers import read_strangers
from engine.service.processes import MARK


def strangers_on(root: HostRoot, machine: Machine) -> tuple[Stranger, ...]:
    """Programs that hold PUs or GPUs and are no instance of this user's."""
    processes = read_all(root)
    ours = [pid for pid in marks(root, MARK, processes) if _is_ours(root, pid)]
    return read_strangers(root, ours, machine, processes)


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
