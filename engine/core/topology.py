"""The machine as facts: packages, NUMA nodes, cores, PUs, GPUs, and what could not be learned."""

from dataclasses import dataclass, replace
from hashlib import sha256

from engine.core.cpuset import CpuSet, NodeSet

_NO_NODES = NodeSet()


@dataclass(frozen=True, slots=True)
class Missing:
    """A fact that we do not have, and the reason we do not have it."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Package:
    """A chip in a socket; sysfs `physical_package_id`."""

    os_index: int
    numa_nodes: NodeSet
    cores: int
    """How many cores with an online PU it has."""


@dataclass(frozen=True, slots=True)
class NumaNode:
    """Memory plus the PUs close to it; a memory-only node has no PUs."""

    os_index: int
    cpus: CpuSet
    memory_bytes: int | None
    packages: tuple[int, ...]
    kind: str = "unknown"
    """dram, hbm, cxl, gpu or unknown."""
    initiators: NodeSet = _NO_NODES
    """For memory without PUs: the nodes whose PUs reach it best, where firmware tells."""


@dataclass(frozen=True, slots=True)
class Core:
    """A physical core; `core_id` is unique only within a package."""

    package: int | None
    core_id: int | None
    numa_nodes: NodeSet
    pus: CpuSet
    """Its SMT siblings that are online."""
    kind: str | None = None
    """performance, efficiency, or None where the machine has one kind of core."""
    highest_perf: int | None = None
    """How fast it may run, only to be compared with the machine's other cores: firmware's abstract
    scale (ACPI CPPC), else its highest clock in kHz. None where that is not told, or prefers no
    core to another of its kind."""


@dataclass(frozen=True, slots=True)
class Pus:
    """Logical CPUs by what may be done with them."""

    online: CpuSet
    offline: CpuSet
    usable: CpuSet
    """Online and allowed to us by cpuset and affinity."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU on PCI; unknown values are None with a row in `Machine.missing`."""

    index: int
    pci: str
    vendor: str | None
    device: str | None
    name: str | None
    driver: str | None
    numa_node: int | None
    memory_bytes: int | None
    bar_bytes: int | None
    bar_address: int | None
    link_gt_s: float | None
    link_width: int | None
    drm_card: str | None
    drm_render: str | None
    integrated: bool | None = None
    """Inside a processor, sharing its memory."""
    virtual_function: bool | None = None
    """A slice of a card, made by SR-IOV."""
    numa_node_derived: bool = False
    """`numa_node` is not firmware's own word but that of the PUs near its root bus."""
    pci_path: tuple[str, ...] = ()
    """PCI addresses from the root port to the GPU, which is the last."""
    link_at: str | None = None
    """The upper end of the narrowest link on the path."""
    link_best_gt_s: float | None = None
    """What every port on the way could do: more than the link has now is a worse slot or riser
    than the card deserves, or an idle card that saves power."""
    link_best_width: int | None = None
    bar_sizes_bytes: tuple[int, ...] | None = None
    """Sizes that the largest BAR can be given; the last one is Resizable BAR at its best."""
    may_open: bool | None = None
    """Whether this user may open its render node; None on a recorded machine."""

    @property
    def computes(self) -> bool:
        """Whether engines are put on it unasked: an Intel card, not a GPU inside a processor."""
        return self.vendor == "8086" and not self.integrated


def shared_bridge(one: Gpu, other: Gpu) -> str | None:
    """The nearest bridge above both GPUs; None where they share no root port.

    Traffic between the two need not pass the processor then.
    """
    both = [a for a, b in zip(one.pci_path[:-1], other.pci_path[:-1], strict=False) if a == b]
    return both[-1] if both else None


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine at one moment; `slotdeck.topo/1` in JSON has just these keys."""

    packages: tuple[Package, ...]
    numa_nodes: tuple[NumaNode, ...]
    cores: tuple[Core, ...]
    """In the order of their first PU, by package; slots count cores in this order."""
    pus: Pus
    usable_nodes: NodeSet
    distances: tuple[tuple[int, ...], ...] | None
    """Firmware's relative cost, 10 = local, rows and columns in the order of `numa_nodes`."""
    gpus: tuple[Gpu, ...]
    missing: tuple[Missing, ...]
    live: bool = True
    """True when read from the running kernel; only then can instances be started."""
    memory_bytes: int | None = None
    """Of the whole machine, only where the NUMA nodes do not tell it (`total_memory_bytes`)."""

    @property
    def revision(self) -> str:
        """Changes when a fact does that placements rest on (a PU goes offline, a GPU disappears).

        The speed of a GPU's link is none: it falls while the card is idle. Nor is how much memory
        a node has, only whether it has some: a virtual machine's memory grows and shrinks. Nor is
        the cores' ranking, which firmware may change while the machine runs.
        """
        gpus = tuple(
            replace(gpu, link_gt_s=None, link_width=None, link_at=None) for gpu in self.gpus
        )
        nodes = tuple(
            replace(node, memory_bytes=min(1, node.memory_bytes or 0)) for node in self.numa_nodes
        )
        # Most machines rank no cores: this is asked for every snapshot.
        ranked = any(core.highest_perf is not None for core in self.cores)
        cores = tuple(replace(core, highest_perf=None) for core in self.cores) if ranked else None
        rest = replace(
            self,
            gpus=gpus,
            numa_nodes=nodes,
            cores=cores or self.cores,
            memory_bytes=None,
            missing=(),
        )
        return sha256(repr(rest).encode()).hexdigest()[:12]

    @property
    def total_memory_bytes(self) -> int | None:
        """Of all NUMA nodes together, else what the kernel tells of the whole; None if unknown."""
        sizes = [node.memory_bytes for node in self.numa_nodes]
        known = [size for size in sizes if size is not None]
        return sum(known) if known and len(known) == len(sizes) else self.memory_bytes

    @property
    def priority_cores(self) -> tuple[Core, ...]:
        """Cores that may run faster than most of their kind: Intel's priority and favoured cores.

        Where most may run as fast as any, all those but the slower ones.
        """
        ranks: dict[str | None, list[int]] = {}
        for core in self.cores:
            if core.highest_perf is not None:
                ranks.setdefault(core.kind, []).append(core.highest_perf)
        bars: dict[str | None, int] = {}
        for kind, told in ranks.items():
            told.sort()
            usual = told[(len(told) - 1) // 2]
            bars[kind] = told[0] if usual == told[-1] else usual
        return tuple(
            core
            for core in self.cores
            if core.highest_perf is not None and core.highest_perf > bars[core.kind]
        )

    def numa_node(self, os_index: int) -> NumaNode | None:
        """The NUMA node of that number, or None."""
        return next((node for node in self.numa_nodes if node.os_index == os_index), None)

    def distance(self, origin: int, target: int) -> int | None:
        """Firmware's relative cost between two NUMA nodes by OS index, None if not told."""
        order = [node.os_index for node in self.numa_nodes]
        if self.distances is None or origin not in order or target not in order:
            return None
        return self.distances[order.index(origin)][order.index(target)]
