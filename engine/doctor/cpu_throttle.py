"""Whether processors were slowed down by their own heat since the boot.

The kernel's document "Intel thermal throttle events reporting" and
drivers/thermal/intel/therm_throt.c: times and milliseconds since the boot, of the whole
package, in the folder of each of its PUs.
"""

from engine.core.checks import Check
from engine.doctor.host import CPU, Host, unknown

ID = "cpu-throttle"
_SHORT_MS = 1000
"""Since the boot: less is a burst that nobody has felt."""


def check(host: Host) -> Check:
    """`package_throttle_count` of one PU in each package."""
    names: list[str] = []
    hot: list[str] = []
    short: list[str] = []
    for package in host.machine.packages:
        core = next(one for one in host.machine.cores if one.package == package.os_index)
        folder = f"{CPU}/cpu{min(core.pus)}/thermal_throttle"
        count = host.number(f"{folder}/package_throttle_count")
        if count is None:
            continue
        names.append(f"{folder}/package_throttle_count")
        if count <= 0:
            continue
        names.append(f"{folder}/package_throttle_total_time_ms")
        took_ms = host.number(names[-1])
        for_s = "" if took_ms is None else f", for {took_ms / 1000:.1f} s in all"
        words = f"package {package.os_index} {count} times{for_s}"
        (short if took_ms is not None and took_ms < _SHORT_MS else hot).append(words)
    if not names:
        return unknown(
            ID,
            "whether heat slowed the processors down is not told",
            "the kernel shows no thermal_throttle here: a guest, or not an Intel processor",
            host.seen(f"{CPU}/cpu0/thermal_throttle/package_throttle_count"),
        )
    if not hot:
        found = "no processor was slowed down by heat since the boot"
        if short:
            found = f"slowed down by heat only for a moment since the boot: {'; '.join(short)}"
        return Check(ID, "ok", found, host.seen(*names))
    return Check(
        ID,
        "advice",
        f"slowed down by heat since the boot: {'; '.join(hot)}",
        host.seen(*names),
        "a package that is too hot runs all of its cores slower, and the later of two compared "
        "runs looks worse than it is",
        "look whether the count grows under load; then see to fans, dust, and the room's air",
    )
