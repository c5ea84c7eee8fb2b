"""Whether memory has been written out to swap.

proc_meminfo(5); Documentation/admin-guide/sysctl/vm.rst, swappiness: weights that lie in swap are
read back from disk at the next token.
"""

import re

from engine.core.checks import Check, Evidence
from engine.doctor.host import Host, unknown

ID = "swap"
_MUCH = 256 << 10
"""In kB: less is what no longer wakes on any machine."""


def check(host: Host) -> Check:
    """`SwapTotal` and `SwapFree`."""
    text = host.text("proc/meminfo") or ""
    sizes = {
        key: int(size)
        for key, size in re.findall(r"^(Swap(?:Total|Free)):\s+([0-9]{1,15}) kB$", text, re.M)
    }
    evidence = tuple(
        Evidence(f"/proc/meminfo {key}", f"{sizes[key]} kB" if key in sizes else None)
        for key in ("SwapTotal", "SwapFree")
    )
    if len(sizes) < 2:
        why = "no SwapTotal and SwapFree in /proc/meminfo"
        return unknown(ID, "the use of swap is not told", why, evidence)
    used = sizes["SwapTotal"] - sizes["SwapFree"]
    if used <= _MUCH:
        found = (
            "there is no swap" if not sizes["SwapTotal"] else f"{used / 1024:.0f} MiB of swap used"
        )
        return Check(ID, "ok", found, evidence)
    return Check(
        ID,
        "advice",
        f"{used / (1 << 20):.1f} GiB lie in swap",
        evidence,
        "what of an engine's weights or cache lies there comes back at the speed of a disk",
        "see in `grep VmSwap /proc/[0-9]*/status` whose it is; with so much memory free, `sudo "
        "swapoff -a && sudo swapon -a` brings it back",
        needs=("root",),
    )
