"""Whether /dev/shm is large enough for engines of several processes.

tmpfs(5). vLLM's ranks, PyTorch's loaders and oneCCL meet in it; Docker's default is 64 MiB, which
vLLM's guide raises with --shm-size or --ipc=host.
"""

import re

from engine.core.checks import Check, Evidence
from engine.doctor.host import Host, unknown

ID = "shared-memory"
_MIB = 1 << 20
_DOCKER, _ENOUGH = 64 * _MIB, 1024 * _MIB
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def check(host: Host) -> Check:
    """The size that /proc/self/mountinfo tells; without one it is half of the memory."""
    lines = (host.text("proc/self/mountinfo") or "").splitlines()
    # A record may hold just the mounts of control groups.
    if not any(" - proc " in line for line in lines):
        return unknown(
            ID,
            "the size of /dev/shm is not told",
            "no list of all mounts in /proc/self/mountinfo",
            (Evidence("/proc/self/mountinfo /dev/shm"),),
        )
    # Of several mounts on one place the last is seen.
    mounted = [line for line in lines if line.split(" ")[4:5] == ["/dev/shm"]]
    options = mounted[-1].rpartition(" ")[2] if mounted else None
    evidence = (Evidence("/proc/self/mountinfo /dev/shm", options),)
    told = re.search(r"(?:^|,)size=([0-9]+)([kmg]?)(?:,|$)", options or "")
    size = int(told.group(1)) * _UNITS[told.group(2)] if told else None
    if options is not None and size is None:
        return Check(ID, "ok", "/dev/shm may take half of the memory", evidence)
    found = "nothing is mounted on /dev/shm"
    if size is not None:
        found = f"/dev/shm holds {size / _MIB:,.0f} MiB"
        if size >= _ENOUGH:
            return Check(ID, "ok", found, evidence)
    do, undo, needs = (
        "start the container with --shm-size=8g or --ipc=host",
        "start it without",
        "",
    )
    if size is not None and not _in_container(host):
        do = "`sudo mount -o remount,size=8g /dev/shm` (until the next boot)"
        undo, needs = f"`sudo mount -o remount,size={size} /dev/shm`", "root"
    return Check(
        ID,
        "advice" if size is not None and size > _DOCKER else "problem",
        found,
        evidence,
        "engines of several processes (tensor parallel, data parallel) exchange data there, and "
        "end with an error as soon as it is full",
        do,
        undo,
        (needs or "a restart of the container",),
    )


def _in_container(host: Host) -> bool:
    """A container's root is an overlay, or one of these files marks it."""
    lines = (host.text("proc/self/mountinfo") or "").splitlines()
    overlay = any(line.split(" ")[4:5] == ["/"] and " - overlay " in line for line in lines)
    return (
        overlay
        or host.text(".dockerenv") is not None
        or host.text("run/.containerenv") is not None
    )
