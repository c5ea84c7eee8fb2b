"""What a map is made of: pieces of rows to draw, and areas that a click or the cursor hits."""

from dataclasses import dataclass
from enum import Enum, auto

from tui.present.map_groups import Block, Group


class Scale(Enum):
    """How much room a core gets."""

    LARGE = auto()
    """A named bar for each PU."""
    NORMAL = auto()
    """The owner's letter and one level glyph for each PU."""
    DENSE = auto()
    """One column: the owner above, its load below."""
    ROWS = auto()
    """A NUMA node is a line or two without a box; a cell may stand for several cores."""


class Part(Enum):
    """What a piece of a row shows."""

    PACKAGE = auto()
    TOP = auto()
    BOTTOM = auto()
    SIDE = auto()
    CORES = auto()
    GPU = auto()
    NO_CORES = auto()
    STRIP = auto()
    """A whole NUMA node in one line: name, cores, memory, GPUs."""


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
    each: int = 1
    """How many cores a cell of a strip stands for."""


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
    way: tuple[str, ...] = ("machine",)
    """The breadcrumbs: from the machine to what is shown. They stand in row -1, the title."""

    @property
    def is_deep(self) -> bool:
        """Whether the map is rows with a second line each, for the load."""
        return any(
            piece.part is Part.STRIP and piece.line for row in self.rows[:2] for piece in row
        )

    def slot_at(self, x: int, y: int) -> str | None:
        """The slot under that cell."""
        return next((area.slot for area in self.areas if area.holds(x, y)), None)

    def area(self, slot: str | None) -> Area | None:
        """The first rectangle of a slot."""
        return next((area for area in self.areas if area.slot == slot), None)
