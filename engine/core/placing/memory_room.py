"""Whether weights and KV cache fit on the memory nodes and GPUs of a placement."""

from collections.abc import Sequence
from typing import Protocol

from engine.core.cpuset import NodeSet
from engine.core.errors import CannotPlace
from engine.core.layout import Instance
from engine.core.placing.held import Held
from engine.core.sizing import Needs
from engine.core.status import MemoryBinding
from engine.core.topology import Gpu, Machine

_GIB = 1 << 30
STRICT = ("bind", "interleave", "weighted-interleave")
"""Policies with which memory comes from no other nodes."""


class Sizes(Protocol):
    """How much memory an instance needs; placement asks, whoever knows the model answers."""

    def needs(self, wish: Instance, tensor_parallel: int) -> Needs:
        """Of this instance split over so many GPUs; unknown values are None."""
        ...

    def would_fit(
        self, wish: Instance, tensor_parallel: int, available_bytes: int, devices: int
    ) -> tuple[str, ...]:
        """What could be changed so that it fits into so many bytes on each of so many devices."""
        ...


class MemoryRoom:
    """Free memory by NUMA node while a layout is being placed."""

    def __init__(self, machine: Machine, held: Held, sizes: Sizes | None) -> None:
        self._machine = machine
        self._sizes = sizes
        self._now = dict(held.free_bytes)
        self._left = {
            node.os_index: node.memory_bytes
            for node in machine.numa_nodes
            if node.memory_bytes is not None
        }

    def needs(self, wish: Instance, tensor_parallel: int = 1) -> Needs:
        """What the instance needs, all unknown where nobody can tell."""
        return self._sizes.needs(wish, tensor_parallel) if self._sizes else Needs()

    def left(self, node: int) -> int | None:
        """What other instances of the layout leave of this node, None where not known."""
        return self._left.get(node)

    def at_least(self, wish: Instance) -> int:
        """Bytes of main memory that it needs in any case; 0 where nothing is known."""
        needs = self.needs(wish)
        return needs.total_bytes or needs.weights_bytes or 0

    def take(
        self, wish: Instance, memory: MemoryBinding, reasons: list[str], warnings: list[str]
    ) -> None:
        """Count a CPU instance's memory on its nodes. Raises CannotPlace where it is too much."""
        nodes = NodeSet.parse(memory.nodes)
        wanted = self.at_least(wish)
        self._keep_limit(wish, wanted)
        if not wanted or not nodes or any(node not in self._left for node in nodes):
            return
        have = sum(self._left[node] for node in nodes)
        even = memory.policy == "interleave"
        if even:
            have = min(self._left[node] for node in nodes) * len(nodes)
        where = f"NUMA node{'s' if len(nodes) > 1 else ''} {nodes}"
        if wanted > have and memory.policy in STRICT:
            raise self._too_small(wish, 1, wanted, max(0, have), f"{where} {_has(nodes)}", 1)
        if wanted > have:
            warnings.append(
                f"needs {gib(wanted)}, and {where} {_has(nodes)} {gib(have)}: the rest comes from "
                "other nodes"
            )
        elif (now := sum(self._now.get(node, have) for node in nodes)) < wanted:
            warnings.append(
                f"needs {gib(wanted)}, and {gib(now)} of {where} is free now: free some first"
            )
        else:
            reasons.append(f"needs {gib(wanted)} of the {gib(have)} that {where} {_has(nodes)}")
        for number, node in enumerate(nodes):
            share = wanted // len(nodes) if even else wanted
            if not even and number < len(nodes) - 1:
                share = min(share, self._left[node])
            self._left[node] -= share
            self._now[node] = self._now.get(node, self._left[node] + share) - share
            wanted -= 0 if even else share

    def _keep_limit(self, wish: Instance, wanted: int) -> None:
        """Raises CannotPlace where the wish's own limit is too low for it."""
        most = wish.limits.memory_bytes
        if most is not None and wanted > most:
            raise self._too_small(wish, 1, wanted, most, "its memory_limit is", 1)

    def check_gpus(
        self, wish: Instance, gpus: Sequence[Gpu], share: float, reasons: list[str]
    ) -> None:
        """Raises CannotPlace where a GPU instance is too large, or cannot be split so."""
        many = len(gpus)
        needs = self.needs(wish, many)
        if needs.splits is not None and many > 1 and many not in needs.splits:
            lawful = [str(split) for split in needs.splits if split > 1][:6]
            instead = f"use {' or '.join(lawful)} GPUs, or " if lawful else ""
            raise CannotPlace(
                f"the model's heads or widths cannot be divided over {many} GPUs",
                f"{instead}one replica on each GPU".capitalize(),
            )
        known = [gpu.memory_bytes for gpu in gpus if gpu.memory_bytes is not None]
        each = needs.per_device_bytes
        if each is None or len(known) < many:
            return
        room = int(min(known) * share)
        which = f"{'a' if many > 1 else 'the'} card has {share:.0%} of {gib(min(known))} ="
        if each > room:
            raise self._too_small(wish, many, each, room, which, len(self._machine.gpus))
        on = "on each card " if many > 1 else ""
        reasons.append(f"needs {gib(each)} {on}of the {gib(room)} that may be filled")

    def fits_one(self, wish: Instance, gpu: Gpu, share: float) -> bool:
        """Whether the model would fit a single card of this kind, as far as is known."""
        each = self.needs(wish, 1).per_device_bytes
        return (
            each is not None and gpu.memory_bytes is not None and each <= gpu.memory_bytes * share
        )

    def _too_small(
        self, wish: Instance, split: int, wanted: int, have: int, which: str, devices: int
    ) -> CannotPlace:
        needs = self.needs(wish, split)
        parts = [
            f"{gib(part)} {what}"
            for part, what in (
                (needs.weights_bytes, "weights"),
                (needs.kv_bytes, "KV cache"),
                (needs.runtime_bytes, "runtime, an estimate"),
            )
            if part
        ]
        least = "" if needs.total_bytes is not None else "at least "
        whole = f" ({' + '.join(parts)}{f', over {split} cards' if split > 1 else ''})"
        each = " on each card" if split > 1 else ""
        helps = self._sizes.would_fit(wish, split, have, devices) if self._sizes else ()
        return CannotPlace(
            f"needs {least}{gib(wanted)}{each}{whole}, and {which} {gib(have)}",
            f"This would fit: {'; '.join(helps)}"
            if helps
            else "Choose a larger slot or a smaller model",
        )


def _has(nodes: NodeSet) -> str:
    return "have" if len(nodes) > 1 else "has"


def gib(size_bytes: int) -> str:
    """ "7.5 GiB"; small sizes in MiB."""
    if size_bytes < _GIB:
        return f"{size_bytes / (1 << 20):.0f} MiB"
    return f"{size_bytes / _GIB:.1f} GiB"
