"""Whether a control group cuts the processor time or memory of all that we start.

Documentation/admin-guide/cgroup-v2.rst, cpu.max and memory.max (docker run --cpus, --memory): when
the time of a period is used up, every thread of the group stands still until the next one.
"""

from engine.core.checks import Check, Evidence
from engine.doctor.host import Host, unknown
from engine.host.limit_groups import limits_above

ID = "group-limits"
_GIB = 1 << 30


def check(host: Host) -> Check:
    """The limits of our group and of those above."""
    if host.text("proc/self/cgroup") is None or host.text("proc/self/mountinfo") is None:
        return unknown(
            ID,
            "limits of our control group are not told",
            "no /proc/self/cgroup and mountinfo",
            host.seen("proc/self/cgroup"),
        )
    above = limits_above(host.root)
    pus, memory = len(host.machine.pus.usable), host.machine.total_memory_bytes
    evidence = tuple(Evidence(f"/{folder}", ", ".join(one.words())) for folder, one in above)
    cores = min((one.cpu_cores for _, one in above if one.cpu_cores is not None), default=None)
    most = min(
        (one.memory_bytes for _, one in above if one.memory_bytes is not None), default=None
    )
    words = []
    slow = cores is not None and cores < pus
    if slow:
        words.append(f"the time of {cores:g} cores is all there is for {pus} PUs")
    if most is not None and (memory is None or most < memory):
        of = "" if memory is None else f" of {memory / _GIB:.1f} GiB"
        words.append(f"{most / _GIB:.1f} GiB{of} of memory may be used")
    if not words:
        names = evidence or host.seen("proc/self/cgroup")
        return Check(ID, "ok", "no control group cuts our processor time or memory", names)
    why = (
        "when a period's time is used up, all pinned threads stand still for the rest of it, up "
        "to 0.1 s: tokens come in bursts"
        if slow
        else "plans count with each NUMA node's whole memory; beyond the limit the kernel kills"
    )
    return Check(
        ID,
        "problem" if slow else "advice",
        "; ".join(words),
        evidence,
        why,
        "limit by PUs instead of time (docker: --cpuset-cpus, not --cpus; systemd: AllowedCPUs=, "
        "not CPUQuota=)"
        if slow
        else "raise the limit (docker: --memory; systemd: MemoryMax=), or give each instance less "
        "than that in sum (memory_limit in the layout)",
        needs=("root", "a restart of the container or session"),
    )
