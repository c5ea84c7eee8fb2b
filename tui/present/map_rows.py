"""The map as rows: each NUMA node of a large machine in a line or two, all in sight."""

from math import ceil

from engine.core.cpuset import CpuSet
from tui.present.map_groups import Block, Group
from tui.present.map_parts import Area, Part, Piece, Plan, Scale

GAP = 2
NARROWEST = 34
PACKAGE, NODE = 4, 5
"""Cells of `P7` and of `N12`, with what keeps them apart."""
MEMORY = 7
LEAST = 30
"""In less width boxes that scroll say more."""
LEAST_STRIP = 8


def rows_plan(groups: tuple[Group, ...], width: int, budget: int, siblings: int) -> Plan:
    """As few nodes side by side as fit into `budget` rows, and two lines each where there is
    room: who has the cores, and below how busy they are."""
    blocks = [(at, block) for at, group in enumerate(groups) for block in group.blocks]
    most_across = max(1, (width + GAP) // (NARROWEST + GAP))
    across = next(
        (some for some in range(1, most_across) if ceil(len(blocks) / some) <= budget), most_across
    )
    deep = ceil(len(blocks) / across)
    lines = 2 if 2 * deep <= budget else 1
    each_width = (width - GAP * (across - 1)) // across
    gpus = max([len(block.gpus) for _, block in blocks] or [0])
    most = max([len(block.cores) for _, block in blocks] or [1])
    room = strip_room(each_width, gpus)
    each = max(1, ceil(most / room))
    rows: list[list[Piece]] = [[] for _ in range(deep * lines)]
    small: list[Area] = []
    nodes: list[Area] = []
    packages: list[Area] = []
    for at, (group, block) in enumerate(blocks):
        x, y = at // deep * (each_width + GAP), at % deep * lines
        for line in range(lines):
            rows[y + line].append(
                Piece(x, each_width, Part.STRIP, group, block, block.cores, line, each)
            )
        small += _cells(block, each, x + PACKAGE + NODE, y, lines)
        right = x + each_width - gpus
        small += [
            Area(f"gpu:{gpu}", right + place, y, 1, lines) for place, gpu in enumerate(block.gpus)
        ]
        package = groups[group].package
        if block.node is not None:
            nodes.append(Area(f"numa:{block.node}", x + PACKAGE, y, each_width - PACKAGE, lines))
        if package is not None:
            packages.append(Area(f"package:{package}", x, y, PACKAGE, lines))
    return Plan(
        width,
        len(rows),
        Scale.ROWS,
        1,
        siblings,
        groups,
        tuple(tuple(sorted(row, key=lambda piece: piece.x)) for row in rows),
        (*small, *nodes, *packages),
    )


def strip_room(width: int, gpus: int) -> int:
    """Cells for cores, beside the names, the memory and a cell for each GPU."""
    return max(LEAST_STRIP, width - PACKAGE - NODE - MEMORY - gpus - (1 if gpus else 0))


def _cells(block: Block, each: int, x: int, y: int, lines: int) -> list[Area]:
    return [
        Area(f"core:{CpuSet(block.cores[first : first + each])}", x + at, y, 1, lines)
        for at, first in enumerate(range(0, len(block.cores), each))
    ]
