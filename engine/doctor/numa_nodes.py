"""Whether every NUMA node with cores has memory, and as much as the others.

Documentation/admin-guide/mm/numaperf.rst; Intel's guides fill all channels of every package alike:
decoding is bound by memory bandwidth, and each module that is missing takes its share with it.
"""

from engine.core.checks import Check, Evidence
from engine.core.cpuset import NodeSet
from engine.core.topology import NumaNode
from engine.doctor.host import Host, unknown

ID = "numa-nodes"
_GIB = 1 << 30
_ALIKE = 0.8
"""The kernel and firmware keep some of node 0 for themselves."""


def check(host: Host) -> Check:
    """The nodes as the map has them."""
    nodes = host.machine.numa_nodes
    home = [node for node in nodes if node.cpus]
    evidence = tuple(_evidence(node) for node in nodes)
    if not nodes or not home:
        why = "the kernel has no NUMA nodes in /sys/devices/system/node"
        return unknown(ID, "NUMA nodes are not told", why)
    empty = NodeSet(node.os_index for node in home if node.memory_bytes == 0)
    if empty:
        return Check(
            ID,
            "problem",
            f"cores without memory: NUMA node {empty}",
            evidence,
            "all that their cores read comes over the interconnect",
            "put memory modules beside that package, or place engines on the other nodes; in a "
            "guest, give each node memory",
            needs=("hardware",),
        )
    sizes = {node.os_index: node.memory_bytes for node in home if node.memory_bytes is not None}
    if len(sizes) < len(home):
        why = "a node's meminfo tells no MemTotal"
        return unknown(ID, "how much memory each NUMA node has is not told", why, evidence)
    if min(sizes.values()) < _ALIKE * max(sizes.values()):
        told = ", ".join(f"node {node} {size / _GIB:.1f} GiB" for node, size in sizes.items())
        return Check(
            ID,
            "advice",
            f"NUMA nodes have unequal memory: {told}",
            evidence,
            "a replica that fits on one node may not fit on another, and where modules are "
            "missing, bandwidth is too",
            "look at `sudo dmidecode -t memory`, and fill all packages and channels alike",
            needs=("hardware",),
        )
    return Check(ID, "ok", _words(host, home), evidence)


def _words(host: Host, home: list[NumaNode]) -> str:
    packages = len(host.machine.packages)
    count = len(home)
    words = f"{count} NUMA node{'s' if count > 1 else ''} with cores"
    if packages and count > packages:
        words += f" in {packages} package{'s' if packages > 1 else ''}: sub-NUMA clusters"
    only = len(host.machine.numa_nodes) - count
    return words + (f", {only} of memory only" if only else "")


def _evidence(node: NumaNode) -> Evidence:
    memory = "not told" if node.memory_bytes is None else f"{node.memory_bytes / _GIB:.1f} GiB"
    return Evidence(
        f"/sys/devices/system/node/node{node.os_index}", f"PUs {node.cpus or 'none'}, {memory}"
    )
