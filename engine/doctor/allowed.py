"""What of the machine we are given, by affinity and by the cpuset of our control group.

Documentation/admin-guide/cgroup-v2.rst, cpuset: what is not in it cannot be had by asking, and a
larger wish is narrowed without a word.
"""

from engine.core.checks import Check, Evidence
from engine.core.cpuset import NodeSet
from engine.doctor.host import Host, unknown

ID = "allowed"
_STATUS = "/proc/self/status"


def check(host: Host) -> Check:
    """Usable PUs and NUMA nodes against those that there are."""
    machine = host.machine
    usable, online, nodes = machine.pus.usable, machine.pus.online, machine.usable_nodes
    # Without the kernel's own word the cpuset of our control group tells, where there is one.
    untold = any(one.what.startswith("proc/self/status") for one in machine.missing)
    place = "/sys/fs/cgroup cpuset." if untold else f"{_STATUS} "
    evidence = (
        Evidence(place + ("cpus" if untold else "Cpus_allowed_list"), str(usable)),
        Evidence(place + ("mems" if untold else "Mems_allowed_list"), str(nodes)),
    )
    every = NodeSet(node.os_index for node in machine.numa_nodes if node.memory_bytes != 0)
    away = [
        node.os_index
        for node in machine.numa_nodes
        if node.cpus & usable and node.os_index in every and node.os_index not in nodes
    ]
    do = (
        "give the container more (--cpuset-cpus, --cpuset-mems), or its slice under systemd "
        f"(AllowedCPUs={online} AllowedMemoryNodes={every})"
    )
    needs = ("root", "a restart of the container or session")
    if away:
        return Check(
            ID,
            "problem",
            f"we may use PUs of NUMA node {NodeSet(away)}, but not the memory there",
            evidence,
            "all that those PUs read lies on another node: a fraction of the bandwidth, at twice "
            "the latency",
            do,
            needs=needs,
        )
    if online - usable or every - nodes:
        parts = []
        if online - usable:
            parts.append(f"{len(usable)} of {len(online)} PUs (not {online - usable})")
        if every - nodes:
            parts.append(f"memory of NUMA node {nodes} (not {every - nodes})")
        return Check(
            ID,
            "advice",
            f"we may use {' and '.join(parts)}",
            evidence,
            "engines that count the machine's PUs start more threads than have room; slotdeck "
            "plans with what is allowed",
            do,
            needs=needs,
        )
    if untold:
        empty = (
            Evidence(f"{_STATUS} Cpus_allowed_list"),
            Evidence(f"{_STATUS} Mems_allowed_list"),
        )
        return unknown(ID, "what we may use is not told", "no /proc/self/status", empty)
    return Check(ID, "ok", "we may use all PUs and all memory", evidence)
