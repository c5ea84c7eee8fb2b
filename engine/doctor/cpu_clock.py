"""Whether cores run as fast as they can while they have work.

Documentation/admin-guide/pm/cpufreq.rst and intel_pstate.rst: the governor `performance` asks for
the highest clock. `powersave` is the lowest one with most drivers, but with intel_pstate and
amd-pstate-epp on their own it follows the load, and how quickly is for
`energy_performance_preference` to say.
"""

from engine.core.checks import Check
from engine.core.cpuset import CpuSet
from engine.doctor.host import CPU, Host, braced, unknown, write
from engine.host.lists import numbered

ID = "cpu-clock"
_OWN = ("intel_pstate", "amd-pstate-epp")
"""Drivers that choose the clock themselves."""
_FOLLOWS = ("schedutil", "ondemand", "conservative", "userspace")


def check(host: Host) -> Check:
    """`scaling_governor`, and what it means with the driver."""
    policies = numbered(host.root.names(f"{CPU}/cpufreq"), "policy")
    governors = host.distinct(_file(policy, "scaling_governor") for policy in policies)
    if not governors:
        return unknown(
            ID,
            "who sets the cores' clock is not told",
            "the kernel has no cpufreq here; of a guest the hypervisor sets it",
            host.seen(f"{CPU}/cpufreq/policy0/scaling_governor"),
        )
    worst = max(governors, key=lambda one: _rank(host, one, governors[one][0]))
    first = governors[worst][0].rpartition("/")[0]
    driver = host.text(f"{first}/scaling_driver") or "a driver that is not told"
    preference = host.text(f"{first}/energy_performance_preference")
    names = [files[0] for files in governors.values()]
    names += [f"{first}/scaling_driver"]
    if preference is not None:
        names.append(f"{first}/energy_performance_preference")
    found = f"the governor is {' and '.join(sorted(governors))}, by {driver}"
    rank = _rank(host, worst, governors[worst][0])
    if rank == 0:
        return Check(ID, "ok", found, host.seen(*names))
    if rank == 3:
        return unknown(ID, found, f"what {worst} does is not known here", host.seen(*names))
    if preference is not None and worst == "powersave":
        found += f" with preference {preference}"
    why = (
        "with this driver it holds cores at their lowest clock, whatever work they have"
        if rank == 2
        else "the clock rises only after work has come: first tokens come later, and figures "
        "scatter from run to run"
    )
    undo = "; ".join(
        write(governor, f"{CPU}/cpufreq/policy{braced(_policies(files))}/scaling_governor")
        for governor, files in governors.items()
    )
    return Check(
        ID,
        "problem" if rank == 2 else "advice",
        found,
        host.seen(*names),
        why,
        f"{write('performance', f'{CPU}/cpufreq/policy*/scaling_governor')} (until the next boot)",
        undo,
        ("root",),
    )


def _file(policy: int, name: str) -> str:
    return f"{CPU}/cpufreq/policy{policy}/{name}"


def _policies(files: list[str]) -> CpuSet:
    return CpuSet(int(file.split("/policy")[1].partition("/")[0]) for file in files)


def _rank(host: Host, governor: str, file: str) -> int:
    """0 in order, 1 follows the load, 2 holds the clock down, 3 not known."""
    folder = file.rpartition("/")[0]
    if governor == "performance":
        return 0
    if governor in _FOLLOWS:
        return 1
    if governor != "powersave":
        return 3
    driver = host.text(f"{folder}/scaling_driver")
    if driver not in _OWN:
        return 3 if driver is None else 2
    return int(host.text(f"{folder}/energy_performance_preference") != "performance")
