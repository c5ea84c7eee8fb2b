"""`[expect]`: the fingerprint of the machine on which a layout was saved, compared at replay.

Three keys suffice: `packages`, `numa_nodes`, `gpus`. What `slotdeck save` writes besides tells
what the numbers in slots meant there, so that a machine of the same shape under other numbers
can be given the same places. The keys of its rows are the words of slots: numa, core, pu, gpu.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.errors import LayoutError
from engine.core.likeness.shape import CoreShape, GpuShape, NodeShape, Shape, gpu_name, shape_of
from engine.core.topology import Machine

Gib = Annotated[float, Meta(ge=0, le=1e9)]
Siblings = Literal["adjacent", "far"]


class MemoryRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """NUMA nodes whose memory is alike."""

    numa: str
    """Lists are in kernel form: 0-3,8."""
    kind: str = "unknown"
    """dram, hbm, cxl, gpu or unknown."""
    gib: Gib | None = None
    """Of each, rounded."""
    near: str | None = None
    """Of memory without PUs: the nearest nodes with PUs."""


class CoreRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cores of one package, NUMA node and kind, in the order in which slots count them."""

    core: str
    package: int | None = None
    numa: str | None = None
    kind: str | None = None
    """performance or efficiency, where the machine has both."""
    pu: str
    """One list for all, or a list for each core with spaces between."""
    siblings: Siblings | None = None
    """How the one list makes cores: 0-3 are the cores 0-1 and 2-3 if adjacent; 0,2 and 1,3 if
    far; left out: a core each."""


class CardRow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """GPUs of one name on one NUMA node; `gpus` tells their names."""

    gpu: str
    numa: Annotated[int, Meta(ge=0)] | None = None
    """None: firmware does not tell."""
    gib: Gib | None = None


class Expect(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[expect]`: the machine that the layout was saved on."""

    packages: int | None = None
    numa_nodes: int | None = None
    gpus: list[str] | None = None
    """Names, or PCI ids where there is no name, in the order of their index."""
    memory: list[MemoryRow] | None = None
    cores: list[CoreRow] | None = None
    cards: list[CardRow] | None = None


def fingerprint(machine: Machine) -> Expect:
    """What is written into a layout when it is saved on this machine."""
    shape = shape_of(machine)
    return Expect(
        packages=len(machine.packages),
        numa_nodes=len(machine.numa_nodes),
        gpus=[gpu_name(gpu) for gpu in machine.gpus],
        memory=_memory_rows(shape),
        cores=_core_rows(shape),
        cards=_card_rows(shape) or None,
    )


def shape_expected(expect: Expect) -> Shape | None:
    """The saved machine's shape; None where little more than the three keys tells of it.

    Raises LayoutError when the rows contradict each other.
    """
    if expect.cores is None or expect.gpus is None:
        return None
    try:
        return Shape(
            nodes={
                node: NodeShape(row.kind, row.gib, CpuSet.parse(row.near or ""))
                for row in expect.memory or ()
                for node in _indexes(row.numa)
            },
            cores=_cores_expected(expect.cores or ()),
            gpus=_gpus_expected(expect.cards or (), expect.gpus),
        )
    except ValueError as error:
        raise LayoutError(
            what="[expect] does not describe a machine",
            why=str(error),
            do="Save the layout again, or remove [expect]",
        ) from None


def _indexes(text: str) -> CpuSet:
    found = CpuSet.parse(text)
    if not found:
        raise ValueError("a list of numbers is empty")
    return found


def _memory_rows(shape: Shape) -> list[MemoryRow]:
    alike: dict[NodeShape, list[int]] = {}
    for index, node in shape.nodes.items():
        alike.setdefault(node, []).append(index)
    return [
        MemoryRow(
            numa=str(NodeSet(indexes)), kind=node.kind, gib=node.gib, near=str(node.near) or None
        )
        for node, indexes in alike.items()
    ]


def _core_rows(shape: Shape) -> list[CoreRow]:
    groups: dict[tuple[int | None, NodeSet, str | None], list[int]] = {}
    for index, core in enumerate(shape.cores):
        groups.setdefault((core.package, core.nodes, core.kind), []).append(index)
    rows = []
    for (package, nodes, kind), indexes in groups.items():
        pu, siblings = _as_text([shape.cores[index].pus for index in indexes])
        rows.append(
            CoreRow(
                core=str(CpuSet(indexes)),
                package=package,
                numa=str(nodes) or None,
                kind=kind,
                pu=pu,
                siblings=siblings,
            )
        )
    return rows


def _card_rows(shape: Shape) -> list[CardRow]:
    alike: dict[GpuShape, list[int]] = {}
    for index, gpu in shape.gpus.items():
        alike.setdefault(gpu, []).append(index)
    return [
        CardRow(gpu=str(CpuSet(indexes)), numa=gpu.node, gib=gpu.gib)
        for gpu, indexes in alike.items()
    ]


def _as_text(cores: Sequence[CpuSet]) -> tuple[str, Siblings | None]:
    """One list and how it makes these cores, or where no way does a list for each core."""
    every = CpuSet(pu for pus in cores for pu in pus)
    for siblings in _WAYS:
        if _as_cores(every, len(cores), siblings) == list(cores):
            return str(every), siblings
    return " ".join(map(str, cores)), None


_WAYS: tuple[Siblings | None, ...] = (None, "far", "adjacent")


def _as_cores(every: CpuSet, count: int, siblings: Siblings | None) -> list[CpuSet] | None:
    """The PUs of each of `count` cores, None if that many cannot be made of them."""
    pus = list(every)
    threads = len(pus) // count
    if len(pus) != threads * count or (siblings is None) != (threads == 1):
        return None
    if siblings == "far":
        return [CpuSet(pus[core::count]) for core in range(count)]
    return [CpuSet(pus[core * threads : (core + 1) * threads]) for core in range(count)]


def _cores_expected(rows: Sequence[CoreRow]) -> tuple[CoreShape, ...]:
    found: dict[int, CoreShape] = {}
    for row in rows:
        indexes = _indexes(row.core)
        lists = [_indexes(part) for part in row.pu.split()]
        cores: list[CpuSet] | None = lists
        if len(lists) == 1:
            cores = _as_cores(lists[0], len(indexes), row.siblings)
            if len(indexes) == 1:
                cores = lists
        if cores is None or len(cores) != len(indexes):
            raise ValueError(f"PU {row.pu} do not make the cores {row.core}")
        for index, pus in zip(indexes, cores, strict=True):
            if index in found:
                raise ValueError(f"core {index} stands in two rows")
            nodes = NodeSet.parse(row.numa or "")
            found[index] = CoreShape(row.package, nodes, row.kind, pus)
    if sorted(found) != list(range(len(found))):
        raise ValueError(f"cores {CpuSet(found)} are told, which do not count up from 0")
    cores_in_order = tuple(found[index] for index in range(len(found)))
    if sum(len(core.pus) for core in cores_in_order) != len(Shape({}, cores_in_order, {}).pus):
        raise ValueError("a PU stands in two cores")
    return cores_in_order


def _gpus_expected(rows: Sequence[CardRow], names: Sequence[str]) -> dict[int, GpuShape]:
    found = {index: (row.numa, row.gib) for row in rows for index in _indexes(row.gpu)}
    if sorted(found) != list(range(len(names))):
        raise ValueError(f"gpus has {len(names)} names, and the cards are {CpuSet(found)}")
    return {index: GpuShape(names[index], *found[index]) for index in sorted(found)}
