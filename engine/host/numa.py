"""Memory policy and page residency by the kernel's calls (set_mempolicy(2), move_pages(2))."""

import ctypes
import errno
import os
import platform
import random
import re
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from engine.core.cpuset import NodeSet
from engine.host.device_root import DeviceRoot
from engine.host.process import PAGE_BYTES
from engine.host.root import HostRoot

# Numbers from the kernel's syscall tables; the C library has no wrapper for these calls.
_CALLS = {
    "x86_64": {"set_mempolicy": 238, "get_mempolicy": 239, "move_pages": 279},
    "aarch64": {"get_mempolicy": 236, "set_mempolicy": 237, "move_pages": 239},
}
_POLICIES = {
    "default": 0,
    "preferred": 1,
    "bind": 2,
    "interleave": 3,
    "local": 4,
    "weighted-interleave": 6,
}
_WITHOUT_NODES = ("default", "local")
_MODE_FLAGS = 0xE000
"""MPOL_F_* bits that get_mempolicy may return with the mode."""
_MASK_BITS = 1024
_MOVE, _MOVE_ALL = 1 << 1, 1 << 2
"""MPOL_MF_MOVE, MPOL_MF_MOVE_ALL."""

_libc = ctypes.CDLL(None, use_errno=True)


def _number(name: str) -> int:
    number = _CALLS.get(platform.machine(), {}).get(name)
    if number is None:
        raise OSError(errno.ENOSYS, f"{name} is not known on {platform.machine()}")
    return number


def _call(name: str, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(_number(name)), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


@dataclass(frozen=True, slots=True)
class PolicyCall:
    """What it takes to set a policy and to read it back, for a process that knows no names."""

    set_call: int
    get_call: int
    mode: int
    mask: int
    """A bit for each NUMA node."""

    def words(self) -> str:
        """For the shim, in base 16."""
        return f"{self.set_call:x} {self.get_call:x} {self.mode:x} {self.mask:x}"


def policy_call(policy: str, nodes: NodeSet) -> PolicyCall:
    """The system calls of this machine for a policy. Raises OSError."""
    if any(node >= _MASK_BITS for node in nodes):
        raise OSError(errno.EINVAL, f"NUMA node {max(nodes)} is larger than any kernel has")
    mask = 0 if policy in _WITHOUT_NODES else sum(1 << node for node in nodes)
    set_call, get_call = _number("set_mempolicy"), _number("get_mempolicy")
    return PolicyCall(set_call, get_call, _POLICIES[policy], mask)


def policy_named(mode: int, mask: int) -> tuple[str, NodeSet]:
    """A policy and its nodes as get_mempolicy(2) tells them."""
    names = {number: name for name, number in _POLICIES.items()}
    nodes = NodeSet(node for node in range(_MASK_BITS) if mask >> node & 1)
    return names.get(mode & ~_MODE_FLAGS, f"policy {mode}"), nodes


def set_memory_policy(policy: str, nodes: NodeSet) -> None:
    """Set the calling thread's policy; what it starts inherits it. Raises OSError."""
    call = policy_call(policy, nodes)
    octets = call.mask.to_bytes(_MASK_BITS // 8, sys.byteorder)
    _call(
        "set_mempolicy",
        ctypes.c_int(call.mode),
        octets if call.mask else None,
        ctypes.c_ulong(_MASK_BITS + 1 if call.mask else 0),
    )


def memory_policy() -> tuple[str, NodeSet]:
    """The calling thread's policy and its nodes. Raises OSError."""
    mode = ctypes.c_int()
    mask = ctypes.create_string_buffer(_MASK_BITS // 8)
    _call(
        "get_mempolicy",
        ctypes.byref(mode),
        mask,
        ctypes.c_ulong(_MASK_BITS),
        None,
        ctypes.c_ulong(0),
    )
    return policy_named(mode.value, int.from_bytes(mask.raw, sys.byteorder))


def process_policy(root: HostRoot, pid: int) -> str | None:
    """The policy that the head of /proc/PID/numa_maps shows, e.g. `bind:0` or `default`.

    Only 128 bytes are read: the kernel writes mapping after mapping until it has what was asked
    for, walks the page tables of each, and holds the process's mmap lock while it does.
    """
    head = DeviceRoot.of(root).octets(f"proc/{pid}/numa_maps", 128) or b""
    # Two policies have a space in their name: "prefer (many)" and "weighted interleave".
    policy = re.match(
        rb"[0-9a-f]+ ([a-z]+(?: [a-z(][a-z()]*)?(?:=[\w|]+)?(?::[0-9,-]+)?)[ \n]", head
    )
    return policy.group(1).decode() if policy else None


def move_pages(
    pid: int, addresses: "array[int]", nodes: Sequence[int] | None, *, everybodys: bool = False
) -> "array[int]":
    """Move a process's pages to NUMA nodes, or with None only ask: for each page the node where it
    is, or a negative error number. Raises OSError.

    Pages that other processes have mapped as well are moved only with `everybodys`, for which the
    kernel asks for CAP_SYS_NICE.
    """
    count = len(addresses)
    status = array("i", bytes(4 * count))
    wanted = array("i", nodes) if nodes is not None else None
    _call(
        "move_pages",
        ctypes.c_int(pid),
        ctypes.c_ulong(count),
        ctypes.c_void_p(addresses.buffer_info()[0]),
        ctypes.c_void_p(wanted.buffer_info()[0]) if wanted is not None else None,
        ctypes.c_void_p(status.buffer_info()[0]),
        ctypes.c_int(_MOVE_ALL if everybodys else _MOVE),
    )
    return status


def resident_nodes(
    root: HostRoot, pid: int, *, samples: int, chance: random.Random
) -> dict[int, int] | None:
    """Resident pages per NUMA node in a random sample of a process's mapped pages.

    Addresses are drawn from /proc/PID/maps by size and asked with move_pages(2), which takes no
    long-held lock; addresses without a page do not count. None where the kernel refuses.
    """
    maps = root.text(f"proc/{pid}/maps")
    if maps is None:
        return None
    starts: list[int] = []
    sizes: list[int] = []
    for match in re.finditer(r"^([0-9a-f]+)-([0-9a-f]+) r[w-]", maps, re.MULTILINE):
        first, last = int(match.group(1), 16), int(match.group(2), 16)
        starts.append(first)
        sizes.append((last - first) // PAGE_BYTES)
    if not starts:
        return None
    pages = array("Q")
    # One anywhere in each of so many equal parts of all its pages, in the order of the mappings.
    part, mappings = sum(sizes) / samples, iter(zip(starts, sizes, strict=True))
    start, size = next(mappings)
    before = 0
    for number in range(samples):
        at = int((number + chance.random()) * part) - before
        while at >= size and (following := next(mappings, None)) is not None:
            at, before = at - size, before + size
            start, size = following
        pages.append(start + min(at, size - 1) * PAGE_BYTES)
    try:
        status = move_pages(pid, pages, None)
    except OSError:
        return None
    found: dict[int, int] = {}
    for node in status:
        if node >= 0:
            found[node] = found.get(node, 0) + 1
    return found
