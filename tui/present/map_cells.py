"""One row of the map as spans: borders, titles, cells with owner and load."""

from collections.abc import Sequence

from tui.present.badges import Badge
from tui.present.glyphs import spelled
from tui.present.ink import Line, Span, line_width, merged
from tui.present.map_levels import heat, level
from tui.present.map_parts import Part, Piece, Plan, Scale
from tui.present.map_scene import Scene
from tui.present.map_strips import gpu_row, memory_gauge, strip_row
from tui.present.map_titles import node_title, package_title
from tui.present.text import fit

GAUGE = 8
"""Cells of a NUMA node's memory bar."""
TINTS = {"good": "edge:good", "bad": "edge:bad", "maybe": "edge:maybe", "cursor": "edge:cursor"}


def map_row(plan: Plan, scene: Scene, y: int) -> Line:
    """The row's spans, padded on the right by whoever draws it."""
    if not 0 <= y < len(plan.rows):
        return ()
    spans: list[Span] = []
    x = 0
    for piece in plan.rows[y]:
        spans.append(Span(" " * (piece.x - x)))
        spans += _piece(plan, scene, piece)
        x = piece.x + piece.width
    return merged(spans, blanks=True)


def _piece(plan: Plan, scene: Scene, piece: Piece) -> list[Span]:
    glyphs = scene.glyphs
    block = piece.block
    if piece.part is Part.STRIP and block:
        return strip_row(plan, scene, piece, block)
    if piece.part is Part.PACKAGE:
        slot = f"package:{plan.groups[piece.group].package}"
        glow = scene.lit_slots.get(slot, "")
        title = spelled(package_title(scene, plan.groups[piece.group], piece.width), glyphs)
        cut = fit(title, min(piece.width, len(title)), more=glyphs.more)
        tint = TINTS.get(scene.tints.get(slot, ""), "package")
        return [Span(cut, tint, glow), Span(" " * (piece.width - len(cut)))]
    slot = f"numa:{block.node}" if block else ""
    glow = scene.lit_slots.get(slot, "")
    ink = TINTS.get(glow or scene.tints.get(slot, ""), "edge")
    inner = max(0, piece.width - 2)
    if piece.part is Part.TOP and block:
        name, memory = node_title(scene, block, inner - 2)
        name, memory = spelled(name, glyphs), spelled(memory, glyphs)
        rest = max(0, inner - 1 - len(name) - len(memory))
        gauge: list[Span] = []
        if memory and rest > GAUGE + 3:
            gauge = memory_gauge(scene, block, GAUGE)
            rest -= line_width(gauge) + 1 if gauge else 0
        return [
            Span(glyphs.corners[0] + glyphs.across, ink),
            Span(name, "title", glow),
            Span(glyphs.across * rest, ink),
            *([Span(" "), *gauge] if gauge else []),
            Span(memory, "muted"),
            Span(glyphs.corners[1], ink),
        ]
    if piece.part is Part.BOTTOM:
        return [Span(glyphs.corners[2] + glyphs.across * inner + glyphs.corners[3], ink)]
    inside: list[Span] = []
    if piece.part is Part.CORES:
        inside = [Span(" "), *_cores(plan, scene, piece)]
    elif piece.part is Part.GPU and block:
        inside = gpu_row(scene, block, piece.line, inner)
    elif piece.part is Part.NO_CORES and block:
        words = "no cores: memory only" if block.node is not None else "NUMA node not told"
        inside = [Span(fit(" " + words, inner, more=glyphs.more), "muted")]
    pad = max(0, inner - line_width(inside))
    return [Span(glyphs.down, ink), *inside, Span(" " * pad), Span(glyphs.down, ink)]


def _cores(plan: Plan, scene: Scene, piece: Piece) -> list[Span]:
    if plan.scale is Scale.LARGE:
        return [span for core in piece.cores for span in bar_spans(plan, scene, core, piece.line)]
    if plan.scale is Scale.NORMAL:
        return [span for core in piece.cores for span in _small(plan, scene, core)]
    draw = _column if piece.line == 0 else _heat
    return [draw(scene, core) for core in piece.cores]


def _owner(scene: Scene, core: int, pus: list[int]) -> Span:
    """The letter of who holds these PUs; `+` where it is more than one; the ends of the selected
    one are its handles."""
    holders: dict[Badge, None] = {}
    for pu in pus:
        for badge in scene.owners.get(pu, ()):
            holders[badge] = None
    if len(holders) > 1 or (holders and any(pu in scene.taken for pu in pus)):
        return Span(scene.glyphs.several, "several")
    if holders:
        badge = next(iter(holders))
        if badge != scene.selected:
            return Span(badge.letter, badge.ink)
        end = scene.handles.get(core)
        return Span(badge.letter if end is None else scene.glyphs.ends[end], badge.ink + "!")
    usable = scene.machine.pus.usable
    if pus and not any(pu in usable for pu in pus):
        return Span(scene.glyphs.barred, "barred")
    if any(pu in scene.taken for pu in pus):
        return Span(scene.glyphs.taken, "taken")
    return Span(scene.glyphs.free, "faint")


def level_span(scene: Scene, pu: int, glow: str = "") -> Span:
    """How busy a PU is."""
    at = level(scene.busy.get(pu))
    if at is None:
        return Span(scene.glyphs.unknown, "faint", glow)
    return Span(scene.glyphs.levels[at], heat(at), glow)


def heat_span(scene: Scene, pus: Sequence[int], glow: str = "") -> Span:
    """How busy the PUs of a core are, in one cell: its upper half and its lower half."""
    busy, half = scene.busy, scene.glyphs.half
    if len(pus) < 2 or half is None:
        return level_span(scene, max(pus, key=lambda pu: busy.get(pu) or 0.0, default=-1), glow)
    if len(pus) == 2:
        upper, lower = level(busy.get(pus[0])), level(busy.get(pus[1]))
    else:
        middle = (len(pus) + 1) // 2
        upper, lower = _most(scene, pus[:middle]), _most(scene, pus[middle:])
    if upper is None or lower is None:
        return Span(scene.glyphs.unknown, "faint", glow)
    return Span(half, heat(upper, lower), glow)


def _most(scene: Scene, pus: Sequence[int]) -> int | None:
    known = [at for pu in pus if (at := level(scene.busy.get(pu))) is not None]
    return max(known, default=None)


def _glowing(span: Span, glow: str) -> Span:
    return Span(span.text, span.ink, glow) if glow else span


def _small(plan: Plan, scene: Scene, core: int) -> list[Span]:
    pus = sorted(scene.machine.cores[core].pus.pus)
    glow = scene.lit_cores.get(core, "")
    barred = Span(scene.glyphs.barred, "barred", glow)
    cell = [_glowing(_owner(scene, core, pus), glow)]
    cell += [barred if scene.is_barred(pu) else level_span(scene, pu, glow) for pu in pus]
    cell += [Span(" ", "", glow)] * (plan.siblings - len(pus))
    return [*cell, Span(" ")]


def _column(scene: Scene, core: int) -> Span:
    pus = sorted(scene.machine.cores[core].pus.pus)
    return _glowing(_owner(scene, core, pus), scene.lit_cores.get(core, ""))


def _heat(scene: Scene, core: int) -> Span:
    pus = sorted(scene.machine.cores[core].pus.pus)
    glow = scene.lit_cores.get(core, "")
    if all(scene.is_barred(pu) for pu in pus):
        return Span(scene.glyphs.barred, "barred", glow)
    return heat_span(scene, pus, glow)


def bar_spans(plan: Plan, scene: Scene, core: int, line: int) -> list[Span]:
    """`a core 0 P0 ━━━━━━──── 61 %`, one line for each sibling."""
    glyphs = scene.glyphs
    width = plan.cell_width - 1
    glow = scene.lit_cores.get(core, "")
    pus = sorted(scene.machine.cores[core].pus.pus)
    if line >= len(pus):
        return [Span(" " * (width + 1))]
    pu = pus[line]
    label = f" core {core}" if line == 0 else f" PU {pu}"
    digits = len(str(len(scene.machine.cores) - 1))
    name = (
        fit(label, 7 + digits)
        if width >= 24
        else fit(f" c{core}" if line == 0 else f" P{pu}", 3 + digits)
    )
    share = scene.busy.get(pu)
    barred = scene.is_barred(pu)
    shown = "barred" if barred else glyphs.unknown if share is None else f"{share * 100:.0f} %"
    tail = fit(shown, 6, right=True)
    room = max(0, width - 1 - len(name) - len(tail))
    lit = 0 if share is None or barred else round(min(1.0, max(0.0, share)) * room)
    at = level(share)
    owner = _owner(scene, core, [pu])
    spans = [
        owner,
        Span(name, "label"),
        Span(glyphs.full * lit, heat(at or 0)),
        Span(glyphs.rest * (room - lit), "track"),
        Span(tail, "barred" if barred else "number"),
    ]
    return [*(_glowing(span, glow) for span in spans), Span(" ")]
