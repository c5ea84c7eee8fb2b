"""Orders for drivers, made by hand."""

from dataclasses import replace

from engine.core.cpuset import CpuSet
from engine.core.layout import Instance
from engine.core.placement import Placement
from engine.core.status import MemoryBinding
from engine.core.topology import Gpu
from engine.drivers.driver import Order

A770 = Gpu(
    index=0,
    pci="0000:03:00.0",
    vendor="8086",
    device="56a0",
    name="Arc A770",
    driver="i915",
    numa_node=0,
    memory_bytes=16 << 30,
    bar_bytes=16 << 30,
    bar_address=1 << 40,
    link_gt_s=16.0,
    link_width=16,
    drm_card="card1",
    drm_render="renderD128",
    may_open=True,
)
B60 = replace(A770, device="e211", name="Arc Pro B60", driver="xe", memory_bytes=24 << 30)


def order(
    wish: Instance,
    *,
    model: str = "/models/m",
    pus: str = "8-11",
    nodes: tuple[str, ...] = (),
    cards: tuple[Gpu, ...] = (),
    gpus: tuple[int, ...] | None = None,
    python: str = "/opt/bin/python",
) -> Order:
    """An order for a slot of four PUs on NUMA node 1, or for these PUs and cards."""
    cards = tuple(replace(card, index=index) for index, card in enumerate(cards))
    gpus = tuple(card.index for card in cards) if gpus is None else gpus
    placement = Placement(
        instance=wish.name,
        engine=wish.engine,
        slot="numa:1",
        pus=CpuSet.parse(pus),
        memory=MemoryBinding("bind", "1"),
        gpus=gpus,
        tensor_parallel=max(1, len(gpus)),
        port=8002,
        reasons=(),
    )
    return Order(
        instance=wish,
        placement=placement,
        model=model,
        served_name="served",
        python=python,
        worker="/lib/worker.py",
        cards=cards,
        nodes=tuple(map(CpuSet.parse, nodes)),
    )
