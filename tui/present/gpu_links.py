"""Which GPUs share a PCIe switch or a root port, from the map of the machine."""

from dataclasses import dataclass

from engine.core.topology import Gpu, Machine, shared_bridge


@dataclass(frozen=True, slots=True)
class Link:
    """What a GPU shares with others."""

    kind: str
    """switch, or root port: where traffic between them need not pass the processor."""
    bridge: str
    """Its PCI address."""
    peers: tuple[int, ...]
    """Indexes of the others, in ascending order."""


def gpu_links(machine: Machine) -> dict[int, Link]:
    """GPU index -> the nearest bridge that it shares; without those that share none."""
    links: dict[int, Link] = {}
    for gpu in machine.gpus:
        shared = [
            (gpu.pci_path.index(bridge), bridge, other.index)
            for other in machine.gpus
            if other is not gpu and (bridge := shared_bridge(gpu, other)) is not None
        ]
        if shared:
            depth, bridge, _ = max(shared, key=lambda each: each[0])
            peers = tuple(sorted(other for _, at, other in shared if at == bridge))
            links[gpu.index] = Link("switch" if depth else "root port", bridge, peers)
    return links


def bracket(links: dict[int, Link], column: tuple[int, ...], at: int, marks: str) -> str:
    """The mark that joins neighbours in a column of GPUs; `marks`: top, middle, bottom, none."""
    link = links.get(column[at])
    if link is None:
        return marks[3]
    above = at > 0 and column[at - 1] in link.peers
    below = at + 1 < len(column) and column[at + 1] in link.peers
    return marks[1 if above and below else 2 if above else 0 if below else 3]


def link_words(gpu: Gpu, machine: Machine, links: dict[int, Link]) -> str:
    """`below one switch with gpu 1`, for what the cursor stands on."""
    link = links.get(gpu.index)
    if link is not None:
        return f"below one {link.kind} with gpu {', '.join(str(each) for each in link.peers)}"
    if len([each for each in machine.gpus if each.computes]) < 2:
        return ""
    if not gpu.pci_path:
        return "links to other GPUs not told"
    return "other GPUs by way of the processor"
