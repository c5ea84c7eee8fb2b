"""What a plan tells of the cards of one instance, and of programs of others beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.core.cpuset import CpuSet
from engine.core.placing.gpu_groups import price
from engine.core.strangers import Stranger, held_pus, holders, on
from engine.core.topology import Gpu, Machine

_NEAR = {
    0: "below one PCIe switch",
    1: "below one PCIe root port",
    2: "on one NUMA node, with the processor between them",
}


def tell_nearness(
    machine: Machine, gpus: Sequence[Gpu], reasons: list[str], warnings: list[str]
) -> None:
    """How far the GPUs of one instance are from each other."""
    far = price(gpus)
    which = ", ".join(str(gpu.index) for gpu in gpus)
    models = sorted({gpu.name or gpu.device or "unknown" for gpu in gpus})
    if len(models) > 1:
        warnings.append(f"different cards ({', '.join(models)}): all wait for the slowest")
    if far in _NEAR:
        reasons.append(f"GPU {which} are {_NEAR[far]}")
        return
    nodes = {gpu.numa_node for gpu in gpus}
    if None in nodes:
        warnings.append(
            f"firmware does not tell where GPU {which} are: each layer's exchange may cross "
            "NUMA nodes"
        )
        return
    costs = [machine.distance(a or 0, b or 0) for a in nodes for b in nodes if a != b]
    told = [cost for cost in costs if cost is not None]
    away = f" (distance {max(told)} against 10 at home)" if told else ""
    warnings.append(
        f"GPU {which} are on different NUMA nodes{away}: each layer's exchange crosses the "
        "interconnect"
    )


@dataclass(frozen=True, slots=True)
class Near:
    """What one instance gets, and who else is there."""

    machine: Machine
    strangers: tuple[Stranger, ...]
    pus: CpuSet
    whole: CpuSet
    """All PUs of its cores: who runs on a sibling takes from the core too."""
    gpus: Sequence[Gpu]


def warn_of_strangers(near: Near, reasons: list[str], warnings: list[str]) -> None:
    """Who shares its PUs and GPUs, or what was left to others."""
    strangers, pus, whole = near.strangers, near.pus, near.whole
    usable = near.machine.pus.usable
    if here := on(strangers, pus=pus):
        warnings.append(
            f"PU {held_pus(here) & pus} is also held by {holders(here)}: both will be slower"
        )
    elif here := on(strangers, pus=whole):
        warnings.append(
            f"PU {held_pus(here) & whole}, on the same cores, is held by {holders(here)}: "
            "both will be slower"
        )
    elif strangers:
        elsewhere = on(strangers, pus=usable)
        if elsewhere:
            taken = held_pus(elsewhere) & usable
            reasons.append(f"PU {taken} left to {holders(elsewhere)}")
    busy = on(strangers, gpus=[gpu.index for gpu in near.gpus])
    if busy:
        warnings.append(f"a GPU of this slot is also held by {holders(busy)}")
