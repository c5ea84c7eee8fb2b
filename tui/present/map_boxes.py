"""The map as boxes: packages, in them NUMA nodes with their cores and GPUs."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from tui.present.map_groups import Block, Group
from tui.present.map_parts import Area, Part, Piece, Plan, Scale

GAP = 1
NARROWEST = {Scale.LARGE: 24, Scale.NORMAL: 18, Scale.DENSE: 18}
LARGE_BAR = (20, 38)
MOST_LARGE_CORES = 64
PU_BAR = 10
"""Where the bar of a PU begins in a large cell."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to arrange the same machine."""

    scale: Scale
    across: int
    """Packages side by side."""
    inside: int
    """NUMA nodes side by side in a package."""
    width: int
    siblings: int
    titled: bool = True
    """Whether packages have a line with their name."""

    @property
    def group_width(self) -> int:
        return (self.width - GAP * (self.across - 1)) // self.across

    @property
    def block_width(self) -> int:
        return (self.group_width - GAP * (self.inside - 1)) // self.inside

    @property
    def room(self) -> int:
        """Cells between a block's borders and paddings; a cell's own gap is its right padding."""
        return self.block_width - (4 if self.scale is Scale.DENSE else 3)

    @property
    def cell_height(self) -> int:
        return {Scale.LARGE: self.siblings, Scale.NORMAL: 1, Scale.DENSE: 2}[self.scale]

    def cell_width(self, most: int) -> int:
        """Width of a core with its gap, given the most cores of any block."""
        if self.scale is Scale.LARGE:
            low, high = LARGE_BAR
            columns = max(1, min(most, self.room // low))
            return max(1, min(high, self.room // columns))
        return 1 if self.scale is Scale.DENSE else 2 + self.siblings

    def columns(self, most: int) -> int:
        """Cores in a row: all of them, or a round number of them."""
        fits = max(1, self.room // self.cell_width(most))
        if fits >= most:
            return max(1, most)
        for round_number in (16, 8, 4, 2):
            if fits >= round_number:
                return fits - fits % round_number
        return fits

    def block_height(self, block: Block, most: int) -> int:
        lines = ceil(len(block.cores) / self.columns(most)) * self.cell_height
        return 2 + max(1, lines) + len(block.gpus)

    def group_height(self, group: Group, most: int) -> int:
        rows = [
            group.blocks[at : at + self.inside] for at in range(0, len(group.blocks), self.inside)
        ]
        return self.titled + sum(
            max(self.block_height(block, most) for block in row) for row in rows
        )

    def height(self, groups: tuple[Group, ...], most: int) -> int:
        rows = [groups[at : at + self.across] for at in range(0, len(groups), self.across)]
        return sum(max(self.group_height(group, most) for group in row) for row in rows)


def best_shape(
    groups: tuple[Group, ...], siblings: int, width: int, budget: int, *, titled: bool = True
) -> tuple[Shape, bool]:
    """The roomiest arrangement that fits `budget` rows, else the flattest; and whether it fits."""
    most = _most(groups)
    cores = sum(len(block.cores) for group in groups for block in group.blocks)
    widest = max([len(group.blocks) for group in groups] or [1])
    flattest = Shape(Scale.DENSE, 1, 1, width, siblings, titled)
    for scale in (Scale.LARGE, Scale.NORMAL, Scale.DENSE):
        if scale is Scale.LARGE and cores > MOST_LARGE_CORES:
            continue
        shapes = [
            shape
            for across in range(1, max(1, len(groups)) + 1)
            for inside in range(1, widest + 1)
            if (shape := Shape(scale, across, inside, width, siblings, titled)).block_width
            >= NARROWEST[scale]
            or across == inside == 1
        ]
        flattest = min(shapes, key=lambda each: each.height(groups, most))
        if flattest.height(groups, most) <= budget:
            return flattest, True
    return flattest, False


def _most(groups: tuple[Group, ...]) -> int:
    """The most cores of any block."""
    return max([len(block.cores) for group in groups for block in group.blocks] or [0])


def boxes_plan(
    groups: tuple[Group, ...], shape: Shape, pus: Mapping[int, tuple[int, ...]]
) -> Plan:
    """Everything in its place. `pus`: the SMT siblings by core, where they can be chosen too."""
    most = _most(groups)
    rows: list[list[Piece]] = [[] for _ in range(shape.height(groups, most))]
    cores: list[Area] = []
    boxes: list[Area] = []
    packages: list[Area] = []
    top = 0
    for at in range(0, len(groups), shape.across):
        tallest = 0
        for column, group in enumerate(groups[at : at + shape.across]):
            x = column * (shape.group_width + GAP)
            height = shape.group_height(group, most)
            if shape.titled:
                rows[top].append(Piece(x, shape.group_width, Part.PACKAGE, at + column))
            if shape.titled and group.package is not None:
                slot = f"package:{group.package}"
                packages.append(Area(slot, x, top, shape.group_width, height))
            y = top + shape.titled
            for first in range(0, len(group.blocks), shape.inside):
                line = group.blocks[first : first + shape.inside]
                for place, block in enumerate(line):
                    left = x + place * (shape.block_width + GAP)
                    _place_block(block, shape, most, left, y, rows, cores, boxes, pus)
                y += max(shape.block_height(block, most) for block in line)
            tallest = max(tallest, height)
        top += tallest
    return Plan(
        shape.width,
        len(rows),
        shape.scale,
        shape.cell_width(most),
        shape.siblings,
        groups,
        tuple(tuple(sorted(row, key=lambda piece: piece.x)) for row in rows),
        (*cores, *boxes, *packages),
    )


def _place_block(
    block: Block,
    shape: Shape,
    most: int,
    x: int,
    y: int,
    rows: list[list[Piece]],
    cores: list[Area],
    boxes: list[Area],
    pus: Mapping[int, tuple[int, ...]],
) -> None:
    height = shape.block_height(block, most)
    width = shape.block_width
    if block.node is not None:
        boxes.append(Area(f"numa:{block.node}", x, y, width, height))
    rows[y].append(Piece(x, width, Part.TOP, block=block))
    rows[y + height - 1].append(Piece(x, width, Part.BOTTOM, block=block))
    columns, cell = shape.columns(most), shape.cell_width(most)
    line = y + 1
    for first in range(0, len(block.cores), columns):
        row = block.cores[first : first + columns]
        for part in range(shape.cell_height):
            piece = Piece(x, width, Part.CORES, block=block, cores=row, line=part)
            rows[line + part].append(piece)
        for at, core in enumerate(row):
            area = Area(f"core:{core}", x + 2 + at * cell, line, cell, shape.cell_height)
            if shape.scale is Scale.LARGE:  # the name is the core, each bar a PU
                cores += [
                    Area(f"pu:{pu}", area.x + PU_BAR, line + sibling, cell - PU_BAR, 1)
                    for sibling, pu in enumerate(pus.get(core, ()))
                ]
            cores.append(area)
        line += shape.cell_height
    if not block.cores:
        rows[line].append(Piece(x, width, Part.NO_CORES, block=block))
        line += 1
    for at, gpu in enumerate(block.gpus):
        rows[line].append(Piece(x, width, Part.GPU, block=block, line=at))
        cores.append(Area(f"gpu:{gpu}", x + 1, line, width - 2, 1))
        line += 1
    for empty in range(line, y + height - 1):
        rows[empty].append(Piece(x, width, Part.SIDE, block=block))
