"""How near the map is: the machine, a package, a NUMA node or a core, and the way there."""

from dataclasses import replace

from engine.core.topology import Machine
from tui.present.map_groups import Group, node_of, package_of, slot_pus

MACHINE = "machine"


def within(groups: tuple[Group, ...], machine: Machine, zoom: str) -> tuple[Group, ...]:
    """The part of the machine that is shown; all of it where the zoom names nothing here."""
    kind, _, rest = zoom.partition(":")
    if kind == "package":
        some = tuple(group for group in groups if str(group.package) == rest)
        return some or groups
    if kind not in ("numa", "core"):
        return groups
    found = []
    for group in groups:
        if kind == "numa":
            blocks = tuple(block for block in group.blocks if str(block.node) == rest)
        else:
            wanted = int(rest) if rest.isdigit() else -1
            blocks = tuple(
                replace(block, cores=(wanted,), gpus=())
                for block in group.blocks
                if wanted in block.cores
            )
        if blocks:
            found.append(Group(group.package, blocks))
    return tuple(found) or groups


def path(machine: Machine, zoom: str) -> tuple[str, ...]:
    """From the machine to what is shown, without steps that show the same."""
    kind = zoom.partition(":")[0]
    steps = [MACHINE]
    package, node = package_of(machine, zoom), node_of(machine, zoom)
    if kind in ("package", "numa", "core") and package is not None and len(machine.packages) > 1:
        steps.append(f"package:{package}")
    if kind in ("numa", "core") and node is not None and _nodes_beside(machine, package) > 1:
        steps.append(f"numa:{node}")
    if kind == "core":
        steps.append(zoom)
    if kind in ("package", "numa") and steps[-1] != zoom and len(steps) == 1:
        steps.append(zoom)
    return tuple(steps)


def _nodes_beside(machine: Machine, package: int | None) -> int:
    return sum(1 for node in machine.numa_nodes if package is None or package in node.packages)


def nearer(machine: Machine, zoom: str, cursor: str | None) -> str | None:
    """The next step towards what the cursor stands on; None where there is none."""
    if cursor is None or cursor == MACHINE:
        return None
    kind = cursor.partition(":")[0]
    target = cursor
    if kind == "gpu":
        node = node_of(machine, cursor)
        target = MACHINE if node is None else f"numa:{node}"
    elif kind in ("core", "pu"):
        pus = slot_pus(machine, cursor)
        index = next((at for at, core in enumerate(machine.cores) if core.pus & pus), None)
        target = MACHINE if index is None else f"core:{index}"
    way, here = path(machine, target), path(machine, zoom)
    if here == way[: len(here)] and len(way) > len(here):
        return way[len(here)]
    return None


def farther(machine: Machine, zoom: str) -> str | None:
    """One step back; None where all of the machine is shown."""
    way = path(machine, zoom)
    return way[-2] if len(way) > 1 else None


def crumb(slot: str) -> str:
    """`NUMA 2` of `numa:2`, as breadcrumbs say it."""
    kind, _, rest = slot.partition(":")
    return f"{ {'numa': 'NUMA'}.get(kind, kind) } {rest}".strip()
