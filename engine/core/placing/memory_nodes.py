"""Which NUMA nodes an instance's memory comes from, once its cores are known."""

from collections.abc import Sequence

from engine.core.cpuset import NodeSet
from engine.core.errors import CannotPlace
from engine.core.status import MemoryBinding
from engine.core.topology import Core, Machine


def usable_memory(machine: Machine) -> NodeSet:
    """Nodes with memory that we may use and that programs are meant to live in."""
    return machine.usable_nodes & NodeSet(
        node.os_index
        for node in machine.numa_nodes
        if node.memory_bytes != 0 and node.kind != "gpu"
    )


def memory_of(
    machine: Machine,
    policy: str,
    cores: Sequence[Core],
    reasons: list[str],
    warnings: list[str],
) -> MemoryBinding:
    """The binding for these cores; tells its reasons. Raises CannotPlace."""
    near = NodeSet(node for core in cores for node in core.numa_nodes)
    if len(near) > 1:
        warnings.append(
            f"spans NUMA nodes {near}: {price_of(machine, near)}; one instance per node avoids it"
        )
    if not machine.numa_nodes:
        reasons.append("this kernel tells no NUMA nodes: memory is not bound")
        return MemoryBinding("local", "")
    if policy == "local":
        reasons.append("memory local: from the node of the core that first touches it")
        return MemoryBinding("local", "")
    memory = usable_memory(machine)
    if not memory:
        raise CannotPlace(
            f"no NUMA node with memory may be used (allowed: {machine.usable_nodes or 'none'})",
            'Widen the cpuset\'s mems, or write memory = "local"',
        )
    chosen = near & memory
    whose = f"the node{'s' if len(chosen) > 1 else ''} of its cores"
    if not chosen:
        chosen = NodeSet([nearest(machine, near, memory)])
        whose = "the nearest with memory that we may use"
        costs = [machine.distance(origin, min(chosen)) for origin in near]
        known = [cost for cost in costs if cost is not None]
        price = f", distance {max(known)} against 10 at home" if known else ""
        warnings.append(
            f"NUMA node {near or '–'} has no memory that we may use: it comes from node "
            f"{chosen}{price}"
        )
    if policy == "preferred" and len(chosen) > 1:
        # The kernel's policy of that name takes one node.
        chosen = NodeSet([max(chosen, key=lambda node: (_cores_on(cores, node), -node))])
        whose = "the node of most of its cores"
    words = {"bind": "bound to", "preferred": "preferred from", "interleave": "interleaved over"}
    words["weighted-interleave"] = "interleaved by the kernel's weights over"
    reasons.append(f"memory {words[policy]} NUMA node {chosen}, {whose}")
    return MemoryBinding(policy, str(chosen))


def price_of(machine: Machine, nodes: NodeSet) -> str:
    """What the longest way between these nodes costs, in words."""
    costs = [machine.distance(a, b) for a in nodes for b in nodes if a != b]
    known = [cost for cost in costs if cost is not None]
    return f"distance {max(known)} against 10 at home" if known else "distance not told"


def nearest(machine: Machine, near: NodeSet, among: NodeSet) -> int:
    """Of some nodes the nearest to any of `near`, by the firmware's distances."""

    def cost(node: int) -> int:
        costs = [machine.distance(origin, node) for origin in near]
        return min((one for one in costs if one is not None), default=255)

    return min(among, key=lambda node: (cost(node), node))


def _cores_on(cores: Sequence[Core], node: int) -> int:
    return sum(1 for core in cores if node in core.numa_nodes)
