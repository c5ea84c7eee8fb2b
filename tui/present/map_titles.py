"""The words on the map: packages, NUMA nodes with their memory, GPUs, the legend."""

from dataclasses import dataclass

from engine.core.cpuset import CpuSet
from engine.core.status import GpuStatus
from engine.core.strangers import Stranger, held_pus, holders, on
from tui.present.badges import badges
from tui.present.glyphs import Glyphs
from tui.present.gpu_links import gpu_links, link_words
from tui.present.ink import Line, Span
from tui.present.map_groups import Block, Group, slot_pus
from tui.present.map_levels import heat
from tui.present.map_scene import HOLDING, Scene, owners_of
from tui.present.map_zoom import crumb
from tui.present.text import clean
from tui.present.units import count, gib, memory, number, percent
from tui.view import View

GPU_FIGURES = {
    "busy": "load",
    "memory_used_bytes": "used memory",
    "power_w": "power",
    "temperature_c": "temperature",
    "frequency_mhz": "clock",
    "throttle": "throttling",
}


def package_title(scene: Scene, group: Group, width: int) -> str:
    """`package 0 · 16 cores · PUs 0-15,32-47`, shorter where there is less room."""
    if group.package is None:
        return "outside the packages"
    cores = [scene.machine.cores[core] for block in group.blocks for core in block.cores]
    pus = CpuSet(pu for core in cores for pu in core.pus)
    words = [f"package {group.package}", count(len(cores), "core"), f"PUs {pus}"]
    while len(words) > 1 and len(" · ".join(words)) > width:
        words.pop()
    return " · ".join(words)


def node_title(scene: Scene, block: Block, room: int) -> tuple[str, str]:
    """The node's name and its memory, as much as fits into a box's upper border."""
    if block.node is None:
        return " no NUMA node ", ""
    node = scene.machine.numa_node(block.node)
    kind = node.kind if node and node.kind not in ("dram", "unknown") else ""
    name = f" NUMA {block.node} {kind.upper() + ' ' if kind else ''}"
    status = scene.nodes.get(block.node)
    total = node.memory_bytes if node else None
    wishes = []
    if status and status.free_bytes is not None:
        free = memory(status.free_bytes)
        wishes = [f" {free} free ", f" {free.replace(' ', '')[:-2]} free "]
        if total is not None:
            wishes.insert(0, f" {free} free of {memory(total)} ")
    elif total is not None:
        wishes = [f" {memory(total)} "]
    return name, next((wish for wish in wishes if len(name) + len(wish) <= room), "")


@dataclass(frozen=True, slots=True)
class GpuWords:
    """What is said of a GPU, part by part; empty where there is nothing to say."""

    head: str
    name: str = ""
    memory: str = ""
    """`4.1/12.0 GiB`; only the size where nothing is measured."""
    load: str = ""
    """`34 %`, or that nothing is measured."""
    held: str = ""
    """What holds its clock down."""
    more: tuple[str, ...] = ()
    """That, its power and its heat."""

    @classmethod
    def of(cls, scene: Scene, index: int) -> "GpuWords":
        """Of one GPU of the scene."""
        gpu = next((each for each in scene.machine.gpus if each.index == index), None)
        status = scene.gpus.get(index)
        head, name = f"gpu {index}", clean(gpu.name or gpu.device or gpu.pci) if gpu else ""
        size = memory(gpu.memory_bytes) if gpu else ""
        if status is None:
            return cls(head, name, size)
        if not measured(status):
            return cls(head, name, size, "not measured")
        if gpu and gpu.memory_bytes:
            size = f"{gib(status.memory_used_bytes)}/{size}"
        held = f"held down by {clean(' and '.join(status.throttle))}" if status.throttle else ""
        power, heat_c = status.power_w, status.temperature_c
        more = [held, f"{number(power)} W" if power is not None else ""]
        more.append(f"{number(heat_c)} °C" if heat_c is not None else "")
        return cls(head, name, size, percent(status.busy), held, tuple(filter(None, more)))


def measured(status: GpuStatus) -> bool:
    """Whether anything at all is known of its work."""
    figures = (status.busy, status.memory_used_bytes, status.power_w, status.temperature_c)
    return any(each is not None for each in figures)


def gpu_whys(status: GpuStatus) -> str:
    """What is not known of a GPU and why, what holds it down, and what figures leave out."""
    words = [f"held down by {' and '.join(status.throttle)}"] if status.throttle else []
    if status.engines:
        ranked = sorted(status.engines.items(), key=lambda one: -one[1])
        words.append(", ".join(f"{name} {percent(share)}" for name, share in ranked[:3]))
    if not measured(status) and len(set(status.unknown.values())) == 1:
        words.append(f"not measured: {next(iter(status.unknown.values()))}")
    else:
        words += [f"no {GPU_FIGURES.get(key, key)}: {why}" for key, why in status.unknown.items()]
    words += [f"{GPU_FIGURES.get(key, key)} {note}" for key, note in status.notes.items()]
    return clean(" · ".join(words))


def slot_text(view: View, slot: str) -> str:
    """`core:3 · PUs 3,19 · a`: what the cursor stands on, who has it, strangers too."""
    machine = view.machine
    if machine is None:
        return slot
    strangers = view.snapshot.strangers if view.snapshot else ()
    if slot == "machine":
        words = [slot, f"PUs {machine.pus.online}"]
        return " · ".join(words)
    if slot.startswith("gpu:"):
        indexes = _indexes(slot[4:])
        first = next(iter(indexes), -1)
        gpus = {each.index: each for each in view.snapshot.gpus} if view.snapshot else {}
        told = GpuWords.of(Scene(machine, gpus=gpus), first)
        words = [slot, *filter(None, (told.name, told.memory, told.load))]
        names = [each.name for each in view.instances if set(each.gpus) & indexes.pus]
        theirs = on(strangers, gpus=indexes.pus)
        words += [_held_by([name for name in names if _holds(view, name)], theirs)]
        gpu = next((each for each in machine.gpus if each.index == first), None)
        if gpu and (link := link_words(gpu, machine, gpu_links(machine))):
            words.append(link)
        if (status := gpus.get(first)) and (why := gpu_whys(status)):
            words.append(why)
        return " · ".join(words)
    pus = slot_pus(machine, slot)
    names = [
        each.name for each in view.instances if each.state in HOLDING and _overlap(each.pus, pus)
    ]
    which = f"{'PU' if len(pus) == 1 else 'PUs'} {pus or 'none'}"
    words = [slot, which, _held_by(names, on(strangers, pus))]
    if lost := pus - machine.pus.usable:
        words.append(f"not for us: {'all' if lost == pus else lost}")
    return " · ".join(words)


def crumb_line(way: tuple[str, ...], scene: Scene) -> Line:
    """`machine › package 1 › NUMA 2`: where the map is, and that one can go back there."""
    spans: list[Span] = []
    for slot in way:
        if spans:
            spans.append(Span(f" {scene.glyphs.crumb} ", "faint"))
        glow = scene.lit_slots.get(slot, "")
        ink = {"": "title" if slot == way[-1] else "label", "cursor": "edge:cursor"}.get(
            glow, f"edge:{glow}"
        )
        spans.append(Span(crumb(slot), ink, glow))
    return tuple(spans)


def _held_by(names: list[str], theirs: tuple[Stranger, ...]) -> str:
    ours = ", ".join(clean(name) for name in names)
    others = f"taken by {clean(holders(theirs))}" if theirs else ""
    return " and ".join(filter(None, [ours, others])) or "free"


def _holds(view: View, name: str) -> bool:
    each = view.named(name)
    return each is not None and each.state in HOLDING


def _indexes(text: str) -> CpuSet:
    try:
        return CpuSet.parse(text)
    except ValueError:
        return CpuSet()


def _overlap(text: str, pus: CpuSet) -> bool:
    return bool(_indexes(text) & pus)


def legend(view: View, glyphs: Glyphs) -> Line:
    """What the marks in the map mean, with only those that occur."""
    spans = [Span("load ", "muted")]
    spans += [Span(glyph, heat(at)) for at, glyph in enumerate(glyphs.levels)]
    names = badges(each.name for each in view.instances)
    for each in view.instances:
        if each.state in HOLDING:
            badge = names[each.name]
            spans += [Span("  "), Span(badge.letter, badge.ink)]
            spans.append(Span(f" {clean(each.name)[:16]}", "muted"))
    spans += [Span(f"  {glyphs.free}", "faint"), Span(" free", "muted")]
    owners = owners_of(view)
    theirs = held_pus(view.snapshot.strangers).pus if view.snapshot else frozenset()
    if any(len(badge) > 1 for badge in owners.values()) or not theirs.isdisjoint(owners):
        spans += [Span(f"  {glyphs.several}", "several"), Span(" shared", "muted")]
    machine = view.machine
    strangers = view.snapshot.strangers if view.snapshot else ()
    if strangers:
        spans.append(Span(f"  {glyphs.taken}", "taken"))
        spans.append(Span(f" {clean(holders(strangers, most=1))}", "muted"))
    if machine and machine.pus.online - machine.pus.usable:
        spans += [Span(f"  {glyphs.barred}", "barred"), Span(" barred", "muted")]
    if machine and machine.pus.offline:
        spans += [Span(f"  offline {machine.pus.offline}", "muted")]
    return tuple(spans)
