"""Whether reading the time is a few nanoseconds, or a trip to a slow device.

Documentation/timers/timekeeping.rst: the kernel falls back to hpet or acpi_pm when it mistrusts
the processor's own counter; both are read over the bus, by a system call, one PU after the other.
"""

from engine.core.checks import Check
from engine.doctor.host import ABSENT, Host, unknown, write

ID = "clock-source"
_FOLDER = "sys/devices/system/clocksource/clocksource0"
_QUICK = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", "timebase", "tod")
_SLOW = ("hpet", "acpi_pm", "jiffies", "pit", "refined-jiffies")


def check(host: Host) -> Check:
    """`current_clocksource`."""
    name, others = f"{_FOLDER}/current_clocksource", f"{_FOLDER}/available_clocksource"
    now = host.text(name)
    if now is None:
        return unknown(ID, "the clock source is not told", ABSENT, host.seen(name))
    if now in _QUICK:
        return Check(ID, "ok", f"the time is read from {now}", host.seen(name))
    if now not in _SLOW:
        return unknown(ID, f"the time is read from {now}", "how dear that is is not known here")
    can = "tsc" in (host.text(others) or "").split()
    return Check(
        ID,
        "problem",
        f"the time is read from {now}, a slow device",
        host.seen(name, others),
        "engines and load generators ask for the time at every token; each time costs "
        "microseconds, and PUs wait for one another",
        f"{write('tsc', name)} (until the next boot)"
        if can
        else "`sudo dmesg | grep -i -e tsc -e clocksource` tells why tsc was given up: update the "
        "firmware; in a guest, give it an invariant TSC",
        write(now, name) if can else None,
        ("root",) if can else ("firmware", "reboot"),
    )
