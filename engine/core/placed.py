"""The answer to a wish: where an instance goes, or why it cannot, apart from how that is found."""

from dataclasses import dataclass

from engine.core.cpuset import CpuSet
from engine.core.limits import Limits
from engine.core.status import MemoryBinding

_NO_PUS = CpuSet()
_NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Placement:
    """PUs, memory nodes and GPUs for one instance, with the reasons."""

    instance: str
    engine: str
    slot: str
    """The slot as the layout says it."""
    pus: CpuSet
    memory: MemoryBinding
    gpus: tuple[int, ...]
    tensor_parallel: int
    port: int
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    reserved: CpuSet = _NO_PUS
    """PUs of the slot left to the API process and the kernel: among `pus` where the engine binds
    its computing threads itself, else outside."""
    limits: Limits = _NO_LIMITS


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an instance has no lawful place, and what would help."""

    instance: str
    why: str
    do: str
