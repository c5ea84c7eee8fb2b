"""Whether firmware says near which NUMA node each card sits.

Documentation/ABI/testing/sysfs-bus-pci, numa_node: -1 where firmware has no _PXM for the slot. CPU
threads and pinned buffers of a card on the other package cross the interconnect for each copy.
"""

from collections.abc import Iterator

from engine.core.checks import Check
from engine.doctor.cards import Finding, folder, together
from engine.doctor.host import ABSENT, Host

ID = "gpu-node"


def check(host: Host) -> Check | None:
    """`numa_node` of each card; with one node there is nothing to know."""
    if len(host.machine.numa_nodes) < 2:
        return None
    return together(ID, _findings(host))


def _findings(host: Host) -> Iterator[Finding]:
    for gpu in host.cards:
        evidence = host.seen(f"{folder(gpu)}/numa_node", f"{folder(gpu)}/local_cpulist")
        if gpu.numa_node is not None:
            by = " (by the PUs near it)" if gpu.numa_node_derived else ""
            yield Finding(gpu, "ok", f"near NUMA node {gpu.numa_node}{by}", evidence)
            continue
        if host.number(f"{folder(gpu)}/numa_node") is None:
            yield Finding(gpu, "unknown", "its NUMA node is not told", evidence, ABSENT)
            continue
        yield Finding(
            gpu,
            "advice",
            "firmware does not say its NUMA node",
            evidence,
            "the cores that feed it are then chosen blindly, and may sit on the other package",
            "update the firmware (it lacks the slot's proximity, _PXM), or name the cores: slot = "
            '"gpu:N/core:…"; the board\'s manual tells which package the slot belongs to',
            "",
            ("firmware",),
        )
