"""Whether the clocks above the rated one are switched off.

Documentation/admin-guide/pm/intel_pstate.rst (`no_turbo`) and cpufreq.rst (`boost`).
"""

from engine.core.checks import Check
from engine.doctor.host import CPU, Host, unknown, write

ID = "turbo"
_FILES = ((f"{CPU}/intel_pstate/no_turbo", 1), (f"{CPU}/cpufreq/boost", 0))
"""And what they say when it is off."""


def check(host: Host) -> Check:
    """The first of the two files that the kernel has."""
    for name, off in _FILES:
        value = host.number(name)
        if value not in (0, 1):
            continue
        if value != off:
            return Check(ID, "ok", "turbo clocks are on", host.seen(name))
        return Check(
            ID,
            "advice",
            "turbo clocks are off",
            host.seen(name),
            "cores stay at their rated clock where power and heat would allow more; off is right "
            "only for figures that must not scatter",
            f"{write(1 - off, name)} (until the next boot; where it is refused, the firmware has "
            "turbo switched off)",
            write(off, name),
            ("root",),
        )
    why = "the kernel has neither file; of a guest the hypervisor decides"
    return unknown(ID, "whether turbo is on is not told", why, host.seen(*(f for f, _ in _FILES)))
