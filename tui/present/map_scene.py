"""What the map's cells show at one moment: load, owners, and what is lit."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from engine.core.cpuset import CpuSet
from engine.core.status import GpuStatus, InstanceStatus, NodeStatus, Snapshot, State
from engine.core.strangers import Stranger
from engine.core.topology import Machine
from tui.drag import Cargo, Kind, core_of
from tui.present.badges import Badge, badges
from tui.present.glyphs import UNICODE, Glyphs
from tui.present.gpu_links import Link, gpu_links
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
    gpu_owners: Mapping[int, tuple[Badge, ...]] = field(default_factory=dict)
    links: dict[int, Link] = field(default_factory=dict)
    """Of GPUs that share a bridge."""
    taken: Mapping[int, Stranger] = field(default_factory=dict)
    """PU -> the stranger that is pinned there, the largest where there are several."""
    taken_gpus: Mapping[int, Stranger] = field(default_factory=dict)
    handles: Mapping[int, int] = field(default_factory=dict)
    """Core -> 0 for the first, 1 for the last of the selected instance."""
    tints: Mapping[str, str] = field(default_factory=dict)
    """Slot -> verdict, while something is carried."""
    lit_slots: Mapping[str, str] = field(default_factory=dict)
    """Slot -> glow, for titles and GPUs."""
    lit_cores: Mapping[int, str] = field(default_factory=dict)
    glyphs: Glyphs = UNICODE

    def moved(self, snapshot: Snapshot) -> "Scene":
        """The same setting a moment later: only loads, memory and GPUs are others."""
        return replace(
            self,
            busy=dict(zip(self.busy, snapshot.pus_busy, strict=False)),
            nodes={each.os_index: each for each in snapshot.numa_nodes},
            gpus={each.index: each for each in snapshot.gpus},
        )

    def has_setting_of(self, other: "Scene") -> bool:
        """Whether all but loads, memory and GPUs is the same, as after `moved`."""
        return self.owners is other.owners

    def is_barred(self, pu: int) -> bool:
        """Whether it is neither for us to use nor held by one of ours."""
        return pu not in self.machine.pus.usable and pu not in self.owners


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


def gpu_owners_of(view: View) -> dict[int, tuple[Badge, ...]]:
    """GPU -> the badges of all that hold it."""
    names = badges(each.name for each in view.instances)
    owners: dict[int, tuple[Badge, ...]] = {}
    for instance in view.instances:
        if instance.state in HOLDING:
            for gpu in instance.gpus:
                owners[gpu] = (*owners.get(gpu, ()), names[instance.name])
    return owners


def cores_held(machine: Machine, instance: InstanceStatus | None) -> list[int]:
    """Indexes of the cores of which an instance holds a PU."""
    pus = held(instance).pus if instance else frozenset()
    if not pus:
        return []
    return [at for at, core in enumerate(machine.cores) if not core.pus.pus.isdisjoint(pus)]


def handles_of(machine: Machine, instance: InstanceStatus | None) -> dict[int, int]:
    """The two ends of an instance that lies in one piece on two cores or more, without GPUs."""
    if instance is None or instance.gpus:
        return {}
    cores = cores_held(machine, instance)
    if len(cores) < 2 or cores[-1] - cores[0] != len(cores) - 1:
        return {}
    return {cores[0]: 0, cores[-1]: 1}


def handle_at(view: View, machine: Machine, slot: str) -> Cargo | None:
    """Taking the selected instance by one of its ends: the other one stays."""
    core = core_of(slot)
    handles = handles_of(machine, view.instance)
    if core not in handles or view.instance is None:
        return None
    anchor = next(at for at, end in handles.items() if end != handles[core])
    return Cargo(Kind.RESIZE, (view.instance.name,), anchor=anchor)


def end_of(view: View, machine: Machine, carried: Cargo | None) -> tuple[Cargo, str]:
    """Taking the selected instance by its last core, and where that is; by its first one where
    the last is held already."""
    cores = cores_held(machine, view.instance) or [0]
    first, last = cores[0], cores[-1]
    if carried is not None and carried.kind is Kind.RESIZE and carried.anchor == first:
        first, last = last, first
    return Cargo(Kind.RESIZE, (view.selected or "",), anchor=first), f"core:{last}"


def holder(view: View, machine: Machine, slot: str) -> str | None:
    """The first instance that holds something of a slot."""
    if slot.startswith("gpu:"):
        index = slot[4:]
        return next(
            (
                each.name
                for each in view.instances
                if each.state in HOLDING and any(str(gpu) == index for gpu in each.gpus)
            ),
            None,
        )
    pus = slot_pus(machine, slot)
    return next((each.name for each in view.instances if held(each) & pus), None)


def map_scene(
    view: View,
    machine: Machine,
    *,
    cursor: str | None = None,
    target: str | None = None,
    verdict: str = "maybe",
    tints: Mapping[str, str] | None = None,
    glyphs: Glyphs = UNICODE,
) -> Scene:
    """The scene of one view; a target (while carrying) outshines the cursor."""
    snapshot = view.snapshot
    lit_slots: dict[str, str] = {}
    lit_cores: dict[int, str] = {}
    slot, glow = (target, verdict) if target else (cursor, "cursor")
    if slot:
        for each in _each(slot):
            lit_slots[each] = glow
        pus = slot_pus(machine, slot).pus
        if target or slot.startswith(("core:", "pu:")):
            for index, core in enumerate(machine.cores):
                if core.pus and not core.pus.pus.isdisjoint(pus):
                    lit_cores[index] = glow
    online = sorted(machine.pus.online.pus)
    strangers = sorted(snapshot.strangers, key=lambda each: each.rss_bytes) if snapshot else []
    return Scene(
        machine,
        dict(zip(online, snapshot.pus_busy, strict=False)) if snapshot else {},
        owners_of(view),
        badges(each.name for each in view.instances).get(view.selected or ""),
        {each.os_index: each for each in snapshot.numa_nodes} if snapshot else {},
        {each.index: each for each in snapshot.gpus} if snapshot else {},
        gpu_owners_of(view),
        gpu_links(machine) if machine.gpus else {},
        {pu: each for each in strangers for pu in each.pus},
        {gpu: each for each in strangers for gpu in each.gpus},
        handles_of(machine, view.instance),
        tints or {},
        lit_slots,
        lit_cores,
        glyphs,
    )


def same_setting(before: View, after: View) -> bool:
    """Whether two views of one machine differ in figures alone, as far as the map goes."""
    old, new = before.snapshot, after.snapshot
    if old is None or new is None or before.selected != after.selected:
        return False
    if len(old.instances) != len(new.instances) or len(old.pus_busy) != len(new.pus_busy):
        return False
    return old.strangers == new.strangers and all(
        (one.name, one.state, one.pus, one.gpus) == (two.name, two.state, two.pus, two.gpus)
        for one, two in zip(old.instances, new.instances, strict=True)
    )


def _each(slot: str) -> list[str]:
    """`gpu:0,1` is two slots of the map; every other slot is one."""
    kind, _, rest = slot.partition(":")
    if kind != "gpu":
        return [slot]
    try:
        return [f"gpu:{index}" for index in CpuSet.parse(rest)]
    except ValueError:
        return [slot]
