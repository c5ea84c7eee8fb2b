"""Wishes on slots answered with placements and refusals, each with its reasons."""

from dataclasses import dataclass

from engine.core.cpuset import CpuSet
from engine.core.status import MemoryBinding


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


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an instance has no lawful place, and what would help."""

    instance: str
    why: str
    do: str
