"""Whether the kernel moves pages and threads between NUMA nodes by itself.

Documentation/admin-guide/sysctl/kernel.rst, numa_balancing: it finds out by faults that it makes
on purpose, and where a workload is bound to nodes already it should be off. Bit 1 stands for
memory tiering only, which moves between DRAM and slower memory.
"""

from engine.core.checks import Check
from engine.doctor.host import ABSENT, Host, unknown

ID = "numa-balancing"


def check(host: Host) -> Check:
    """`/proc/sys/kernel/numa_balancing`."""
    name = "proc/sys/kernel/numa_balancing"
    if len(host.machine.numa_nodes) < 2:
        return Check(ID, "ok", "one NUMA node: there is nothing to balance", host.seen(name))
    value = host.number(name)
    if value is None:
        return unknown(ID, "automatic NUMA balancing is not told", ABSENT, host.seen(name))
    if not value & 1:
        found = "only tiers of memory are balanced" if value & 2 else "NUMA balancing is off"
        return Check(ID, "ok", found, host.seen(name))
    return Check(
        ID,
        "advice",
        "automatic NUMA balancing is on",
        host.seen(name),
        "it unmaps pages to see who touches them: engines that are bound already pay for those "
        "faults, and what is not bound may wander",
        f"`sudo sysctl kernel.numa_balancing={value & ~1}` (until the next boot)",
        f"`sudo sysctl kernel.numa_balancing={value}`",
        ("root",),
    )
