"""Which slot the map's cursor reaches next, by direction."""

from dataclasses import replace

from tui.drag import core_of
from tui.present.map_parts import Area, Plan

DIRECTIONS = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}


def first_slot(plan: Plan) -> str | None:
    """Where a new cursor stands: the first NUMA node, else whatever there is."""
    slots = [area.slot for area in plan.areas]
    return next((slot for slot in slots if slot.startswith("numa:")), next(iter(slots), None))


def neighbour(plan: Plan, slot: str | None, direction: str) -> str | None:
    """The nearest slot that way; the same one at the map's edge."""
    here = plan.area(slot)
    if here is None:
        return first_slot(plan)
    dx, dy = DIRECTIONS[direction]
    x, y = _anchor(here)
    best: tuple[float, str] | None = None
    for area in plan.areas:
        if area.slot == slot:
            continue
        ox, oy = _anchor(area)
        ahead = (ox - x) * dx + (oy - y) * dy * 3
        if dy:  # a box's title spans its cells, so sideways distance is to its nearest edge
            aside = max(0.0, area.x - x, x - (area.x + area.width - 1))
        else:
            aside = abs(oy - y) * 6
            if oy != y:  # sideways stays in its row
                aside += 1000
        if ahead <= 0:
            continue
        score = ahead + aside
        if best is None or score < best[0]:
            best = (score, area.slot)
    return best[1] if best else slot


def next_core(plan: Plan, slot: str | None, direction: str) -> str | None:
    """The same among cores alone: left and right go on in the order of cores, over all edges."""
    cores = [area for area in plan.areas if area.slot.startswith("core:")]
    cores.sort(key=lambda area: core_of(area.slot) or 0)
    at = next((at for at, area in enumerate(cores) if area.slot == slot), None)
    if at is None or direction in ("up", "down"):
        there = neighbour(replace(plan, areas=tuple(cores)), slot, direction)
        return there or (cores[0].slot if cores else slot)
    to = at + DIRECTIONS[direction][0]
    return cores[to].slot if 0 <= to < len(cores) else slot


def _anchor(area: Area) -> tuple[float, float]:
    """Boxes are stood on by their title row, cells by their first line."""
    return area.x + min(area.width, 4) / 2, area.y
