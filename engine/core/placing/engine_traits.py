"""What placement has to know of an engine: where it computes, and what it wants left free."""

from dataclasses import dataclass
from typing import Literal

Device = Literal["cpu", "gpu", "any"]


@dataclass(frozen=True, slots=True)
class EngineTraits:
    """Of one engine, as its driver tells."""

    device: Device = "any"
    """What it computes on; `any` follows the slot: GPUs where it has some, else CPUs."""
    tensor_parallel: bool = True
    """Whether it can split one model over several GPUs."""
    reserve_cores: int = 0
    """Cores that it wants left free when the layout does not say."""
    binds_threads: bool = False
    """Whether it binds its computing threads itself: its other processes then run on the reserved
    cores too, which are among its PUs."""
    memory_share: float = 0.95
    """The part of a GPU's memory that it may fill."""
