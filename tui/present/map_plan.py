"""Where everything stands on the map for a given room: what is shown, and in which form."""

from dataclasses import replace

from engine.core.topology import Machine
from tui.present.map_boxes import best_shape, boxes_plan
from tui.present.map_groups import machine_groups
from tui.present.map_parts import Area, Plan
from tui.present.map_rows import LEAST, rows_plan
from tui.present.map_zoom import MACHINE, crumb, path, within

NARROWEST = 12


def map_plan(machine: Machine, width: int, budget: int, zoom: str = MACHINE) -> Plan:
    """The roomiest form that fits `budget` rows. From afar what does not fit is drawn in rows;
    from near it is as large as it is, to be scrolled."""
    width = max(NARROWEST, width)
    groups = within(machine_groups(machine), machine, zoom)
    shown = [core for group in groups for block in group.blocks for core in block.cores]
    siblings = max([len(machine.cores[core].pus) for core in shown] or [1]) or 1
    # From near the breadcrumbs name the package.
    shape, fits = best_shape(groups, siblings, width, budget, titled=zoom == MACHINE)
    nodes = sum(len(group.blocks) for group in groups)
    if not fits and nodes > 1 and zoom == MACHINE and width >= LEAST:
        plan = rows_plan(groups, width, budget, siblings)
    else:
        near = zoom.startswith(("numa:", "core:")) and siblings > 1
        pus = {core: tuple(machine.cores[core].pus) for core in shown} if near else {}
        plan = boxes_plan(groups, shape, pus)
    way = path(machine, zoom)
    crumbs, x = [], 0
    for slot in way:
        crumbs.append(Area(slot, x, -1, len(crumb(slot)), 1))
        x += len(crumb(slot)) + len(" > ")
    return replace(plan, areas=(*plan.areas, *crumbs), way=way)
