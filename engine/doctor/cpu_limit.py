"""Whether somebody has set a highest clock below what the cores can do.

Documentation/admin-guide/pm/cpufreq.rst: `scaling_max_freq` is the highest clock that is asked
for, `cpuinfo_max_freq` the highest there is.
"""

from engine.core.checks import Check
from engine.core.cpuset import CpuSet
from engine.doctor.host import ABSENT, CPU, Host, braced, unknown, write
from engine.host.lists import numbered

ID = "cpu-limit"


def check(host: Host) -> Check:
    """`scaling_max_freq` against `cpuinfo_max_freq` of every policy."""
    lower: dict[tuple[int, int], list[int]] = {}
    known: list[str] = []
    for policy in numbered(host.root.names(f"{CPU}/cpufreq"), "policy"):
        folder = f"{CPU}/cpufreq/policy{policy}"
        limit = host.number(f"{folder}/scaling_max_freq")
        most = host.number(f"{folder}/cpuinfo_max_freq")
        if limit is None or most is None or limit <= 0:
            continue
        known.append(folder)
        if limit < most:
            lower.setdefault((limit, most), []).append(policy)
    if not known:
        evidence = host.seen(f"{CPU}/cpufreq/policy0/scaling_max_freq")
        return unknown(ID, "the cores' highest clock is not told", ABSENT, evidence)
    if not lower:
        evidence = host.seen(f"{known[0]}/scaling_max_freq", f"{known[0]}/cpuinfo_max_freq")
        return Check(ID, "ok", "the cores may use their highest clock", evidence)
    names = [
        f"{CPU}/cpufreq/policy{policies[0]}/{name}"
        for policies in lower.values()
        for name in ("scaling_max_freq", "cpuinfo_max_freq")
    ]
    files = {
        pair: f"{CPU}/cpufreq/policy{braced(CpuSet(policies))}/scaling_max_freq"
        for pair, policies in lower.items()
    }
    words = [
        f"cores of cpufreq policy {CpuSet(policies)} are held to {limit / 1e6:.2f} of "
        f"{most / 1e6:.2f} GHz"
        for (limit, most), policies in lower.items()
    ]
    return Check(
        ID,
        "advice",
        "; ".join(words),
        host.seen(*names),
        "first tokens need clock: prompts are computed more slowly in the same proportion",
        "; ".join(write(most, file) for (_, most), file in files.items())
        + " (until the next boot)",
        "; ".join(write(limit, file) for (limit, _), file in files.items()),
        ("root",),
    )
