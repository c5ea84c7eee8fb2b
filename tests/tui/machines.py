"""Machines made by hand: the small one, a real server with GPUs, and the largest."""

from engine.core.cpuset import CpuSet
from engine.core.topology import Core, Gpu, Machine, Missing, NumaNode, Package, Pus

GIB = 1 << 30


def made(
    packages: int,
    nodes: int,
    cores: int,
    *,
    smt: int = 1,
    gpus: int = 0,
    memory: int | None = 64 * GIB,
    unusable: str = "",
    offline: str = "",
) -> Machine:
    """Counts are per parent; the first sibling of every core is numbered first, as on Xeon."""
    total = packages * nodes * cores
    gone = CpuSet.parse(offline)
    all_cores = []
    for index in range(total):
        node = index // cores
        pus = CpuSet(index + total * sibling for sibling in range(smt)) - gone
        all_cores.append(Core(node // nodes, index % (nodes * cores), CpuSet([node]), pus))
    node_list = []
    for node in range(packages * nodes):
        mine = [core for at, core in enumerate(all_cores) if at // cores == node]
        pus = CpuSet(pu for core in mine for pu in core.pus)
        node_list.append(NumaNode(node, pus, memory, (node // nodes,), "dram"))
    online = CpuSet(range(total * smt)) - gone
    gpu_list = tuple(
        Gpu(
            index,
            f"0000:{index + 3:02x}:00.0",
            "8086",
            "56a0",
            "Arc A770",
            "xe",
            index if gpus <= packages * nodes else index * packages * nodes // gpus,
            16 * GIB,
            16 * GIB,
            1 << 40,
            16.0,
            16,
            f"card{index}",
            f"renderD{128 + index}",
            pci_path=(
                f"0000:{index // 2:02x}:01.0",
                f"0000:{index + 20:02x}:00.0"
                if index >= gpus // 2
                else f"0000:{index // 2 + 20:02x}:00.0",
                f"0000:{index + 3:02x}:00.0",
            ),
        )
        for index in range(gpus)
    )
    return Machine(
        tuple(
            Package(at, CpuSet(range(at * nodes, (at + 1) * nodes)), nodes * cores)
            for at in range(packages)
        ),
        tuple(node_list),
        tuple(all_cores),
        Pus(online, gone, online - CpuSet.parse(unusable)),
        CpuSet(range(packages * nodes)),
        None,
        gpu_list,
        (),
    )


SMALL = made(1, 1, 2, memory=8 * GIB)
SERVER = made(2, 2, 8, smt=2, gpus=2)
HUGE = made(8, 1, 128, smt=2, memory=1024 * GIB)
LARGEST = made(8, 1, 128, smt=2, gpus=16, memory=1024 * GIB)
"""As large as it gets: 2,048 PUs and 16 GPUs, of which half share a switch in pairs."""


def odd() -> Machine:
    """Memory-only node, offline and barred PUs, a GPU without a node, a core without package."""
    base = made(1, 2, 3, smt=2, gpus=1, unusable="4-5,10-11", offline="7")
    hbm = NumaNode(7, CpuSet(), None, (), "hbm")
    stray = Core(None, None, CpuSet(), CpuSet([40]))
    gpu = Gpu(
        9, "0000:99:00.0", None, None, None, None, None, None, None, None, None, None, None, None
    )
    online = base.pus.online | CpuSet([40])
    return Machine(
        base.packages,
        (*base.numa_nodes, hbm),
        (*base.cores, stray),
        Pus(online, base.pus.offline, base.pus.usable | CpuSet([40])),
        base.usable_nodes,
        None,
        (*base.gpus, gpu),
        (Missing("gpus[1].name", "no driver is bound"),),
    )
