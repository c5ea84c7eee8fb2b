"""What is there already while a layout is placed: our other instances, ports, strangers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.core.cpuset import CpuSet
from engine.core.strangers import Stranger


@dataclass(frozen=True, slots=True)
class Held:
    """What runs already: our own is left alone, strangers are avoided where there is a choice."""

    pus: Mapping[str, CpuSet]
    """By the name of the instance that holds them."""
    ports: Mapping[int, str]
    preferred_ports: Mapping[str, int] = field(default_factory=dict)
    """By instance: the port that it has now, kept where the layout names none."""
    gpus: Mapping[int, str] = field(default_factory=dict)
    """GPUs by index and who holds them."""
    strangers: tuple[Stranger, ...] = ()
    free_bytes: Mapping[int, int] = field(default_factory=dict)
    """Memory free now by NUMA node, where that is known."""
