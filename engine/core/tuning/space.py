"""What may be tried: how many instances of how many cores, and how each one runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from engine.core.layout import Instance
from engine.core.topology import Machine

BATCH = "max-num-seqs"
"""What our worker and vLLM call the most sequences that they compute together."""
MOST_INSTANCES = 64


@dataclass(frozen=True, slots=True)
class Candidate:
    instances: int
    cores: int | None
    """Of each; None: all that there are, over all NUMA nodes."""
    reserve: int
    batch: int | None
    """None: the engine's own."""
    weight_only: str

    def __str__(self) -> str:
        cores = "all cores" if self.cores is None else _counted(self.cores, "core")
        parts = [f"{_counted(self.instances, 'instance')} of {cores}"]
        if self.reserve:
            parts.append(f"{self.reserve} reserved")
        if self.batch is not None:
            parts.append(f"batch {self.batch}")
        if self.weight_only != "none":
            parts.append(self.weight_only)
        return ", ".join(parts)

    def wish(self, base: Instance) -> Instance:
        """The layout's instance, so."""
        args = base.args if self.batch is None else {**base.args, BATCH: self.batch}
        return msgspec.structs.replace(
            base,
            slot="machine" if self.cores is None else "auto",
            cores=self.cores,
            count=self.instances if self.instances > 1 else None,
            reserve_cores=self.reserve,
            args=args,
            weight_only=self.weight_only,
            port=None,
        )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def candidates(
    base: Instance,
    machine: Machine,
    *,
    weight_only: Sequence[str],
    batches: Sequence[int],
) -> tuple[Candidate, ...]:
    """The simplest first: few instances, all of their cores, and what the layout says already."""
    cores = [core for core in machine.cores if core.pus & machine.pus.usable]
    on_node = [sum(bool(core.pus & node.cpus) for core in cores) for node in machine.numa_nodes]
    widest = max(on_node, default=0)
    nodes = sum(count > 0 for count in on_node)
    found: dict[Candidate, None] = {}
    for instances in _counts(len(cores), nodes):
        share = len(cores) // instances
        if share > widest:
            sizes: list[int | None] = [None] if instances == 1 else []
        else:
            sizes = [share, *([share // 2] if share > 1 else [])]
        for size in sizes:
            for reserve in (0, 1) if size is None or size > 1 else (0,):
                for batch in (None, *batches):
                    for form in (base.weight_only, *weight_only):
                        found[Candidate(instances, size, reserve, batch, form)] = None

    def simplicity(one: Candidate) -> tuple[object, ...]:
        size = -len(cores) if one.cores is None else -one.cores
        return (
            one.instances,
            size,
            one.reserve,
            one.weight_only != base.weight_only,
            one.batch or 0,
        )

    return tuple(sorted(found, key=simplicity))


def _counts(cores: int, nodes: int) -> list[int]:
    """1, 2, 4 … and one for each NUMA node, up to one a core."""
    powers = [1 << power for power in range(MOST_INSTANCES.bit_length())]
    return [one for one in sorted({*powers, nodes}) if 0 < one <= min(cores, MOST_INSTANCES)]
