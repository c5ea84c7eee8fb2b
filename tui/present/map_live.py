"""Which cells of the map show a load, and how each is drawn; all others stand."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tui.present.ink import Span
from tui.present.map_cells import bar_spans, heat_span, level_span
from tui.present.map_parts import Part, Piece, Plan, Scale
from tui.present.map_rows import NODE, PACKAGE
from tui.present.map_scene import Scene
from tui.present.map_strips import load_span

Draw = Callable[[Scene], Sequence[Span]]


@dataclass(frozen=True, slots=True)
class Live:
    """A stretch of a row."""

    x: int
    pus: tuple[int, ...]
    draw: Draw


def live_cells(plan: Plan, scene: Scene, y: int) -> Iterator[Live]:
    """Those of one row, as long as the scene's setting is the same."""
    for piece in plan.rows[y] if 0 <= y < len(plan.rows) else ():
        if piece.part is Part.CORES:
            yield from _cores(plan, scene, piece)
        elif piece.part is Part.STRIP and piece.block:
            yield from _strip(plan, scene, piece)


def _cores(plan: Plan, scene: Scene, piece: Piece) -> Iterator[Live]:
    for at, core in enumerate(piece.cores):
        x = piece.x + 2 + at * plan.cell_width
        pus = tuple(sorted(scene.machine.cores[core].pus.pus))
        glow = scene.lit_cores.get(core, "")
        if plan.scale is Scale.NORMAL:
            for place, pu in enumerate(pus):
                if not scene.is_barred(pu):
                    yield Live(x + 1 + place, (pu,), _level(pu, glow))
        elif plan.scale is Scale.DENSE and piece.line == 1:
            if all(scene.is_barred(pu) for pu in pus):
                continue
            yield Live(x, pus, _heat(pus, glow))
        elif plan.scale is Scale.LARGE and piece.line < len(pus):
            yield Live(x, (pus[piece.line],), _bar(plan, core, piece.line))


def _strip(plan: Plan, scene: Scene, piece: Piece) -> Iterator[Live]:
    if plan.is_deep and piece.line == 0:
        return  # who holds them; their load is on the line below
    for at, first in enumerate(range(0, len(piece.cores), piece.each)):
        cores = piece.cores[first : first + piece.each]
        pus = tuple(pu for core in cores for pu in scene.machine.cores[core].pus)
        glow = next((scene.lit_cores[core] for core in cores if core in scene.lit_cores), "")
        draw = _load(cores, pus, glow, owned=not plan.is_deep)
        yield Live(piece.x + PACKAGE + NODE + at, pus, draw)


def _level(pu: int, glow: str) -> Draw:
    return lambda scene: (level_span(scene, pu, glow),)


def _heat(pus: tuple[int, ...], glow: str) -> Draw:
    return lambda scene: (heat_span(scene, pus, glow),)


def _bar(plan: Plan, core: int, line: int) -> Draw:
    return lambda scene: bar_spans(plan, scene, core, line)


def _load(cores: tuple[int, ...], pus: tuple[int, ...], glow: str, *, owned: bool) -> Draw:
    return lambda scene: (load_span(scene, cores, pus, owned=owned)._replace(glow=glow),)
