"""Machines recorded elsewhere, unpacked without what no reader asks for."""

import re
import tarfile
from pathlib import Path

from engine.host.root import HostRoot
from tests.shared import needs, shared, unpack

TREES = "machines/trees"
NAMES = sorted(path.name.removesuffix(".tar.bz2") for path in shared(TREES).glob("*.tar.bz2"))

_NEEDED = re.compile(
    r"^[^/]+(/(proc/(meminfo|mounts|self(/.*)?)|dev(/c.*)?|sys/fs(/cgroup.*)?|sys/bus(/(dax|cxl|pci(/devices.*)?).*)?"
    r"|sys/devices/(cpu_.*|virtual(/memory_tiering.*)?)|sys/devices/system/cpu(/[a-z]+)?"
    r"|sys/devices/pci[0-9a-f:]+(/[0-9a-f:.]+)*(/(class|vendor|device))?"
    r"|sys/devices/system/cpu/cpufreq/policy[0-9]+(/cpuinfo_max_freq)?"
    r"|sys/devices/system/cpu/cpu[0-9]+(/(online|cpu_capacity|topology.*|cpufreq(/cpuinfo_max_freq)?))?"
    r"|sys/devices/system/node(/node[0-9]+(/(cpu.*|distance|meminfo|access.*))?)?|(sys|proc)"
    r"|sys/devices(/system)?))?$"
)


def unpacked(name: str, folder: Path) -> HostRoot:
    """The recorded machine of that name in `folder`; skips the test where it is not to be had."""
    packed = needs(f"{TREES}/{name}.tar.bz2")
    target = folder / name
    if not target.exists():
        with tarfile.open(packed) as archive:
            wanted = [one for one in archive if _NEEDED.match(one.name)]
            for one in wanted:
                one.mode |= 0o700 if one.isdir() else 0o600
            unpack(archive, target, wanted)
    (top,) = target.iterdir()
    return HostRoot(top)
