"""The numbers of one machine in those of another of the same shape: an isomorphism.

The rules:

1. Packages, NUMA nodes, cores and GPUs hang together in the same way on both; cores of one
   package, node and kind with equally many PUs are alike, and keep their order.
2. GPUs have the same names; memory of a known kind stays of that kind.
3. A node or GPU may have up to an eighth less memory (`SPARED`), and any amount more: the
   kernel's own share varies by a few percent, a missing memory module is more than an eighth.
4. Distances between nodes with PUs are not compared; each memory without PUs has the same
   nearest nodes.
5. A number stays what it is where that is lawful, else it becomes the lowest that is.
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass

from engine.core.cpuset import CpuSet
from engine.core.likeness.shape import Shape

SPARED = 7 / 8
_STEPS = 100_000
"""So many trials are never needed by a real machine; after them there is no answer."""

_Group = tuple[int | None, CpuSet, str | None]
"""Cores that are alike: package, NUMA nodes, kind."""
_Vertex = tuple[str, Hashable]


@dataclass(frozen=True, slots=True)
class Renumbering:
    """From the numbers of the saved machine to those of this one."""

    packages: Mapping[int, int]
    nodes: Mapping[int, int]
    cores: Mapping[int, int]
    """By index in the machine's order."""
    pus: Mapping[int, int]
    gpus: Mapping[int, int]

    @property
    def is_identity(self) -> bool:
        """Whether every number means the same on both."""
        maps = (self.packages, self.nodes, self.cores, self.pus, self.gpus)
        return all(old == new for one in maps for old, new in one.items())


def enough(saved: float | None, here: float | None) -> bool:
    """Whether this much memory stands for that much; what is not known is not compared."""
    return saved is None or here is None or here >= saved * SPARED


def renumbering(saved: Shape, here: Shape) -> Renumbering | None:
    """The one nearest to no change, None where the shapes differ."""
    return _Search(saved, here).run()


class _Search:
    """Depth-first over packages, nodes and GPUs; colours leave little to try."""

    def __init__(self, saved: Shape, here: Shape) -> None:
        self._saved, self._here = saved, here
        self._groups, self._groups_here = _groups(saved), _groups(here)
        self._colours, colours_here = _coloured(saved, here)
        self._same_colours = Counter(self._colours.values()) == Counter(colours_here.values())
        self._lawful: dict[int, list[int]] = {}
        for (kind, index), colour in colours_here.items():
            if kind != "group" and isinstance(index, int):
                self._lawful.setdefault(colour, []).append(index)
        self._near, self._near_here = _Near.of(saved), _Near.of(here)
        self._map: dict[str, dict[int, int]] = {"package": {}, "numa": {}, "gpu": {}}
        self._taken: dict[str, set[int]] = {"package": set(), "numa": set(), "gpu": set()}

    def run(self) -> Renumbering | None:
        if not self._same_colours:
            return None
        order = self._order()
        if not order:
            return self._finished() if self._groups_fit() else None
        # A stack of its own: a large machine has more parts than Python has frames.
        tried = [self._choices(*order[0])]
        for _ in range(_STEPS):
            if not tried:
                break
            kind, index = order[len(tried) - 1]
            self._taken[kind].discard(self._map[kind].pop(index, -1))
            new = next(tried[-1], None)
            if new is None:
                tried.pop()
                continue
            self._map[kind][index] = new
            self._taken[kind].add(new)
            if len(tried) < len(order):
                tried.append(self._choices(*order[len(tried)]))
            elif self._groups_fit():
                return self._finished()
        return None

    def _choices(self, kind: str, index: int) -> Iterator[int]:
        taken = set(self._taken[kind])
        lawful = self._lawful.get(self._colours[kind, index], [])
        for new in sorted(lawful, key=lambda new: (new != index, new)):
            if new not in taken and self._fits(kind, index, new):
                yield new

    def _fits(self, kind: str, old: int, new: int) -> bool:
        """Whether it agrees with what has been chosen before it."""
        if kind == "numa":
            was, now = self._saved.node(old), self._here.node(new)
            known = "unknown" not in (was.kind, now.kind)
            return (
                enough(was.gib, now.gib)
                and not (known and was.kind != now.kind)
                and self._agree("package", self._near.packages[old], self._near_here.packages[new])
                and self._agree("numa", was.near, now.near)
                and self._agree("numa", self._near.memory[old], self._near_here.memory[new])
            )
        if kind == "gpu":
            card, other = self._saved.gpus[old], self._here.gpus[new]
            node = None if card.node is None else self._map["numa"][card.node]
            return enough(card.gib, other.gib) and node == other.node
        return self._agree("numa", self._near.nodes[old], self._near_here.nodes[new])

    def _agree(self, kind: str, old: CpuSet, new: CpuSet) -> bool:
        """Whether of what is mapped already just the old ones' counterparts are the new ones."""
        mapped = self._map[kind]
        images = {mapped[index] for index in old if index in mapped}
        return images == {index for index in new if index in self._taken[kind]}

    def _order(self) -> list[tuple[str, int]]:
        """Lowest numbers first, each followed by what it touches: a wrong guess shows at once."""
        order: dict[tuple[str, int], None] = {}
        every = _vertices(self._saved)
        for first in (
            *(("package", index) for index in sorted(every["package"])),
            *(("numa", index) for index in sorted(every["numa"])),
        ):
            waiting = [first]
            while waiting:
                kind, index = waiting.pop(0)
                if (kind, index) in order:
                    continue
                order[kind, index] = None
                if kind == "package":
                    waiting += [("numa", node) for node in self._near.nodes[index]]
                else:
                    around = self._saved.node(index).near | self._near.memory[index]
                    waiting += [("numa", node) for node in around]
                    waiting += [("package", one) for one in self._near.packages[index]]
        return [*order, *(("gpu", index) for index in sorted(every["gpu"]))]

    def _groups_fit(self) -> bool:
        """All of it at once: what was chosen early knew nothing of what came after."""
        threads = {
            key: Counter(len(self._saved.cores[index].pus) for index in indexes)
            for key, indexes in self._groups.items()
        }
        return all(
            self._here_of(key) in self._groups_here
            and threads[key]
            == Counter(
                len(self._here.cores[index].pus) for index in self._groups_here[self._here_of(key)]
            )
            for key in self._groups
        ) and all(
            self._agree("numa", node.near, self._here.node(self._map["numa"][index]).near)
            for index, node in self._saved.nodes.items()
        )

    def _here_of(self, key: _Group) -> _Group:
        package, nodes, kind = key
        mapped = self._map["numa"]
        return (
            None if package is None else self._map["package"][package],
            CpuSet(mapped[node] for node in nodes),
            kind,
        )

    def _finished(self) -> Renumbering:
        cores: dict[int, int] = {}
        for key, indexes in self._groups.items():
            targets = self._groups_here[self._here_of(key)]
            for threads in {len(self._saved.cores[index].pus) for index in indexes}:
                old = [index for index in indexes if len(self._saved.cores[index].pus) == threads]
                new = [index for index in targets if len(self._here.cores[index].pus) == threads]
                cores.update(zip(old, new, strict=True))
        pus = {
            was: now
            for old, new in cores.items()
            for was, now in zip(self._saved.cores[old].pus, self._here.cores[new].pus, strict=True)
        }
        maps = self._map
        return Renumbering(maps["package"], maps["numa"], cores, pus, maps["gpu"])


def _groups(shape: Shape) -> dict[_Group, list[int]]:
    groups: dict[_Group, list[int]] = {}
    for index, core in enumerate(shape.cores):
        groups.setdefault((core.package, core.nodes, core.kind), []).append(index)
    return groups


@dataclass(frozen=True, slots=True)
class _Near:
    """What touches what."""

    nodes: dict[int, CpuSet]
    """By package."""
    packages: dict[int, CpuSet]
    """By NUMA node."""
    memory: dict[int, CpuSet]
    """By NUMA node: the memory without PUs that it is nearest to."""

    @classmethod
    def of(cls, shape: Shape) -> "_Near":
        every = _vertices(shape)
        pairs = {(core.package, node) for core in shape.cores for node in core.nodes}
        return cls(
            nodes={one: CpuSet(n for p, n in pairs if p == one) for one in every["package"]},
            packages={
                one: CpuSet(p for p, n in pairs if n == one and p is not None)
                for one in every["numa"]
            },
            memory={
                one: CpuSet(index for index, node in shape.nodes.items() if one in node.near)
                for one in every["numa"]
            },
        )


def _vertices(shape: Shape) -> dict[str, set[int]]:
    named = {node for core in shape.cores for node in core.nodes}
    named |= {gpu.node for gpu in shape.gpus.values() if gpu.node is not None}
    named |= {node for one in shape.nodes.values() for node in one.near}
    return {
        "package": set(shape.packages),
        "numa": named | set(shape.nodes),
        "gpu": set(shape.gpus),
    }


def _coloured(*shapes: Shape) -> list[dict[_Vertex, int]]:
    """Colour refinement: parts of one colour look alike, and so do all that they touch.

    Colours mean the same on all the shapes, so that they can be compared.
    """
    graphs = [_Graph(shape) for shape in shapes]
    colours = [graph.colours for graph in graphs]
    count = 0
    while True:
        names: dict[Hashable, int] = {}
        numbered = [
            {vertex: names.setdefault(colour, len(names)) for vertex, colour in one.items()}
            for one in colours
        ]
        if len(names) == count:
            return numbered
        count = len(names)
        colours = [
            {
                vertex: (
                    colour,
                    tuple(sorted((how, one[other]) for how, other in graph.edges[vertex])),
                )
                for vertex, colour in one.items()
            }
            for one, graph in zip(numbered, graphs, strict=True)
        ]


class _Graph:
    """Packages, nodes, GPUs and groups of like cores, joined by what belongs to what."""

    def __init__(self, shape: Shape) -> None:
        self.colours: dict[_Vertex, Hashable] = {
            (kind, index): (kind, shape.gpus[index].name if kind == "gpu" else "")
            for kind, indexes in _vertices(shape).items()
            for index in indexes
        }
        for key, indexes in _groups(shape).items():
            threads = tuple(sorted(len(shape.cores[index].pus) for index in indexes))
            self.colours["group", key] = ("group", key[2] or "", threads)
        self.edges: dict[_Vertex, list[tuple[str, _Vertex]]] = {one: [] for one in self.colours}
        for key in _groups(shape):
            package, nodes, _ = key
            if package is not None:
                self._join(("group", key), ("package", package), "cores")
            for node in nodes:
                self._join(("group", key), ("numa", node), "cores")
        for index, gpu in shape.gpus.items():
            if gpu.node is not None:
                self._join(("gpu", index), ("numa", gpu.node), "gpu")
        for index, one in shape.nodes.items():
            for node in one.near:
                self._join(("numa", index), ("numa", node), "memory")

    def _join(self, one: _Vertex, other: _Vertex, how: str) -> None:
        self.edges[one].append((f"{how} of", other))
        self.edges[other].append((f"has {how}", one))
