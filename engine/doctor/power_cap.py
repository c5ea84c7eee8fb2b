"""Whether a package may draw less power than it is built for.

Documentation/power/powercap/powercap.rst: `constraint_0` is the long-term limit of a package,
`constraint_0_max_power_uw` what it may be at most.
"""

import re

from engine.core.checks import Check
from engine.doctor.host import Host, unknown, write

ID = "power-cap"
_FOLDER = "sys/class/powercap"


def check(host: Host) -> Check:
    """The limits of all `intel-rapl:N`."""
    names: list[str] = []
    low: list[tuple[str, str, int, int]] = []
    for zone in host.root.names(_FOLDER):
        if not re.fullmatch(r"intel-rapl:[0-9]+", zone):
            continue
        folder = f"{_FOLDER}/{zone}"
        name = host.text(f"{folder}/name") or zone
        limit = host.number(f"{folder}/constraint_0_power_limit_uw")
        most = host.number(f"{folder}/constraint_0_max_power_uw")
        if not name.startswith("package") or not limit or not most or min(limit, most) <= 0:
            continue
        names += [f"{folder}/constraint_0_{one}_uw" for one in ("power_limit", "max_power")]
        if limit < most:
            low.append((name, f"{folder}/constraint_0_power_limit_uw", limit, most))
    if not names:
        return unknown(
            ID,
            "the packages' power limits are not told",
            "no intel-rapl with a limit and its largest value under /sys/class/powercap",
            host.seen(f"{_FOLDER}/intel-rapl:0/constraint_0_power_limit_uw"),
        )
    if not low:
        found = "every package may draw what it is built for"
        return Check(ID, "ok", found, host.seen(*names))
    words = [
        f"{name} is held to {limit / 1e6:.0f} W of {most / 1e6:.0f} W"
        for name, _, limit, most in low
    ]
    return Check(
        ID,
        "advice",
        "; ".join(words),
        host.seen(*names),
        "under a full load the clock falls until the power fits the limit",
        "if the room and the supply allow it: "
        + "; ".join(write(most, file) for _, file, _, most in low)
        + " (until the next boot; firmware may set it again)",
        "; ".join(write(limit, file) for _, file, limit, _ in low),
        ("root",),
    )
