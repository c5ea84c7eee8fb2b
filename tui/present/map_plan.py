"""Where everything stands on the map for a given width: boxes, cells and what a click hits."""

from dataclasses import dataclass
from enum import Enum, auto
from math import ceil

from engine.core.topology import Machine
from tui.present.map_groups import Block, Group, machine_groups


class Scale(Enum):
    """How much room a core gets."""

    LARGE = auto()
    """A named bar for each PU."""
    NORMAL = auto()
    """The owner's letter and one level glyph for each PU."""
    DENSE = auto()
    """One column: the owner above, its load below."""


class Part(Enum):
    """What a piece of a row shows."""

    PACKAGE = auto()
    TOP = auto()
    BOTTOM = auto()
    SIDE = auto()
    CORES = auto()
    GPU = auto()
    NO_CORES = auto()


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of one row."""

    x: int
    width: int
    part: Part
    group: int = 0
    block: Block | None = None
    cores: tuple[int, ...] = ()
    line: int = 0
    """Which line of the cells, or which GPU of the block."""


@dataclass(frozen=True, slots=True)
class Area:
    """A slot's rectangle, for clicks and for the cursor."""

    slot: str
    x: int
    y: int
    width: int
    height: int

    def holds(self, x: int, y: int) -> bool:
        """Whether that cell is inside."""
        return self.x <= x < self.x + self.width and self.y <= y < self.y + self.height


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole map; rows are lists of pieces from left to right."""

    width: int
    height: int
    scale: Scale
    cell_width: int
    siblings: int
    groups: tuple[Group, ...]
    rows: tuple[tuple[Piece, ...], ...]
    areas: tuple[Area, ...]
    """Smallest first, so the first that holds a point is what was meant."""

    def slot_at(self, x: int, y: int) -> str | None:
        """The slot under that cell."""
        return next((area.slot for area in self.areas if area.holds(x, y)), None)

    def area(self, slot: str | None) -> Area | None:
        """The first rectangle of a slot."""
        return next((area for area in self.areas if area.slot == slot), None)


GAP = 1
NARROWEST = {Scale.LARGE: 24, Scale.NORMAL: 18, Scale.DENSE: 18}
LARGE_BAR = (20, 38)
MOST_LARGE_CORES = 64


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
        return 1 + sum(max(self.block_height(block, most) for block in row) for row in rows)

    def height(self, groups: tuple[Group, ...], most: int) -> int:
        rows = [groups[at : at + self.across] for at in range(0, len(groups), self.across)]
        return sum(max(self.group_height(group, most) for group in row) for row in rows)


def map_plan(machine: Machine, width: int, budget: int) -> Plan:
    """The roomiest arrangement that fits `budget` rows, else the flattest one, to be scrolled."""
    width = max(12, width)
    groups = machine_groups(machine)
    siblings = max([len(core.pus) for core in machine.cores] or [1]) or 1
    most = max([len(block.cores) for group in groups for block in group.blocks] or [0])
    shape = _shape(groups, most, siblings, width, budget, len(machine.cores))
    return _placed(groups, shape, most)


def _shape(
    groups: tuple[Group, ...], most: int, siblings: int, width: int, budget: int, cores: int
) -> Shape:
    widest = max([len(group.blocks) for group in groups] or [1])
    flattest = Shape(Scale.DENSE, 1, 1, width, siblings)
    for scale in Scale:
        if scale is Scale.LARGE and cores > MOST_LARGE_CORES:
            continue
        shapes = [
            shape
            for across in range(1, max(1, len(groups)) + 1)
            for inside in range(1, widest + 1)
            if (shape := Shape(scale, across, inside, width, siblings)).block_width
            >= NARROWEST[scale]
            or across == inside == 1
        ]
        flattest = min(shapes, key=lambda each: each.height(groups, most))
        if flattest.height(groups, most) <= budget:
            return flattest
    return flattest


def _placed(groups: tuple[Group, ...], shape: Shape, most: int) -> Plan:
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
            rows[top].append(Piece(x, shape.group_width, Part.PACKAGE, at + column))
            if group.package is not None:
                slot = f"package:{group.package}"
                packages.append(Area(slot, x, top, shape.group_width, height))
            y = top + 1
            for first in range(0, len(group.blocks), shape.inside):
                line = group.blocks[first : first + shape.inside]
                for place, block in enumerate(line):
                    left = x + place * (shape.block_width + GAP)
                    _place_block(block, shape, most, left, y, rows, cores, boxes)
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
