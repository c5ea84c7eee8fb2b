"""What the map's cells show at one moment: load, owners, and what is lit."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.core.cpuset import CpuSet
from engine.core.status import GpuStatus, InstanceStatus, NodeStatus, State
from engine.core.topology import Machine
from tui.present.badges import Badge, badges
from tui.present.glyphs import UNICODE, Glyphs
from tui.present.map_groups import slot_pus
from tui.view import View

HOLDING = (State.STARTING, State.READY, State.STOPPING, State.BACKOFF)
"""States in which an instance keeps its PUs from others."""


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a row's painter may look at."""

    machine: Machine
    busy: Mapping[int, float | None] = field(default_factory=dict)
    owners: Mapping[int, tuple[Badge, ...]] = field(default_factory=dict)
    selected: Badge | None = None
    nodes: Mapping[int, NodeStatus] = field(default_factory=dict)
    gpus: Mapping[int, GpuStatus] = field(default_factory=dict)
    lit_slots: Mapping[str, str] = field(default_factory=dict)
    """Slot -> glow, for titles and GPUs."""
    lit_cores: Mapping[int, str] = field(default_factory=dict)
    glyphs: Glyphs = UNICODE


def held(instance: InstanceStatus) -> CpuSet:
    """The PUs that an instance keeps from others; none when its text is not a CPU set."""
    if instance.state not in HOLDING:
        return CpuSet()
    try:
        return CpuSet.parse(instance.pus)
    except ValueError:
        return CpuSet()


def owners_of(view: View) -> dict[int, tuple[Badge, ...]]:
    """PU -> the badges of all that hold it."""
    names = badges(each.name for each in view.instances)
    owners: dict[int, tuple[Badge, ...]] = {}
    for instance in view.instances:
        for pu in held(instance):
            owners[pu] = (*owners.get(pu, ()), names[instance.name])
    return owners


def map_scene(
    view: View,
    machine: Machine,
    *,
    cursor: str | None = None,
    target: str | None = None,
    verdict: str = "maybe",
    glyphs: Glyphs = UNICODE,
) -> Scene:
    """The scene of one view; a target (while carrying) outshines the cursor."""
    snapshot = view.snapshot
    lit_slots: dict[str, str] = {}
    lit_cores: dict[int, str] = {}
    slot, glow = (target, verdict) if target else (cursor, "cursor")
    if slot:
        lit_slots[slot] = glow
        pus = slot_pus(machine, slot)
        if target or slot.startswith("core:"):
            for index, core in enumerate(machine.cores):
                if core.pus and not core.pus.pus.isdisjoint(pus.pus):
                    lit_cores[index] = glow
    online = sorted(machine.pus.online.pus)
    return Scene(
        machine,
        dict(zip(online, snapshot.pus_busy, strict=False)) if snapshot else {},
        owners_of(view),
        badges(each.name for each in view.instances).get(view.selected or ""),
        {each.os_index: each for each in snapshot.numa_nodes} if snapshot else {},
        {each.index: each for each in snapshot.gpus} if snapshot else {},
        lit_slots,
        lit_cores,
        glyphs,
    )
