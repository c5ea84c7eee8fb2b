"""Why a start was refused, in words: what the kernel made of an order against what was asked."""

import errno
import os

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.errors import LaunchError
from engine.core.status import MemoryBinding
from engine.host.root import HostRoot

SCORE_FILE = "/proc/self/oom_score_adj"


def refused(name: str, error: OSError, doing: str) -> LaunchError:
    """A step of a start that the system has refused."""
    return LaunchError(
        what=f"Instance {name} was not started",
        why=f"{doing}: {error.strerror or error}",
        do=_advice(error.errno or 0),
    )


def refused_score(name: str, score: int | None, code: int) -> LaunchError:
    """The order of dying that it was to have."""
    own = HostRoot().text(SCORE_FILE.lstrip("/")) or "0"
    return LaunchError(
        what=f"Instance {name} was not started",
        why=f"oom_score_adj = {score} was refused ({os.strerror(code)}): to lower it takes "
        "CAP_SYS_RESOURCE",
        do=f"Write one that is not below slotdeck's own ({own}), or allow_degraded = true",
    )


def check_affinity(name: str, asked: CpuSet, code: int, got: CpuSet) -> None:
    """Raises LaunchError where it did not take."""
    if code:
        error = OSError(code, f"PU {asked}: {os.strerror(code)}")
    elif got != asked:
        # A cpuset narrows an affinity silently.
        error = OSError(errno.EINVAL, f"asked for PU {asked}, the kernel gave {got}")
    else:
        return
    raise refused(name, error, "the process could not be made")


def degraded_policy(
    name: str, memory: MemoryBinding, code: int, got: str, taken: NodeSet, *, allowed: bool
) -> str:
    """What was refused of it and may be; raises LaunchError where it may not."""
    policy, nodes = memory.policy, NodeSet.parse(memory.nodes)
    why = os.strerror(code) if code else ""
    same = got == policy or (policy == "local" and got == "default")
    if not code and not (same and (not nodes or taken == nodes)):
        why = f"asked for {policy}:{nodes}, got {got}:{taken}"
    if not why:
        return ""
    if code == errno.EINVAL and policy == "weighted-interleave" and not _has_weights():
        why = "this kernel has no weighted interleave (Linux 6.9 is the first)"
    if allowed:
        return f"memory {policy} on {nodes} was refused: {why}"
    if code == errno.EPERM:
        raise LaunchError(
            what=f"Instance {name} was not started",
            why="the kernel refuses the memory policy (set_mempolicy: Operation not "
            "permitted), as containers do by seccomp",
            do="Start the container with --cap-add SYS_NICE and --security-opt "
            'seccomp=unconfined, or write memory = "local" or allow_degraded = true',
        )
    raise refused(
        name, OSError(code or errno.EINVAL, why), f"memory = {policy!r} on NUMA node {nodes}"
    )


def _has_weights() -> bool:
    return bool(HostRoot().names("sys/kernel/mm/mempolicy/weighted_interleave"))


def _advice(code: int) -> str:
    match code:
        case errno.ENOSPC | errno.EDQUOT:
            return "Free some disk space and start it again"
        case errno.ENOENT:
            return "Correct the path, or install the engine"
        case errno.EACCES | errno.EPERM:
            return "Check the permissions of the program and of the state folder"
        case errno.ECONNRESET | errno.EPIPE:
            return "Start it again"
        case errno.EAGAIN | errno.ENOMEM:
            return "Too many processes or no memory left: stop something first"
        case _:
            return "Correct the slot or the limits (`slotdeck topo` shows what we may use)"
