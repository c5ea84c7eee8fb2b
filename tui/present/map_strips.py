"""Parts of the map that are lines: a NUMA node from afar, a GPU, a memory bar."""

from collections.abc import Sequence

from tui.present.badges import Badge
from tui.present.glyphs import spelled
from tui.present.gpu_links import bracket
from tui.present.ink import Span, cut, line_width
from tui.present.map_groups import Block
from tui.present.map_levels import heat, level
from tui.present.map_parts import Piece, Plan
from tui.present.map_rows import MEMORY, NODE, PACKAGE
from tui.present.map_scene import Scene
from tui.present.map_titles import GpuWords
from tui.present.text import fit
from tui.present.units import memory

TINTS = {"good": "edge:good", "bad": "edge:bad", "maybe": "edge:maybe"}
VRAM = 6
"""Cells of the bar of a GPU's memory."""
_NOBODY = Span("")


def memory_gauge(scene: Scene, block: Block, width: int) -> list[Span]:
    """How much of a NUMA node's memory is used; nothing where that is not known."""
    node = scene.machine.numa_node(block.node) if block.node is not None else None
    status = scene.nodes.get(node.os_index) if node else None
    if node is None or status is None or status.free_bytes is None or not node.memory_bytes:
        return []
    return gauge(scene, 1 - status.free_bytes / node.memory_bytes, width)


def free_text(scene: Scene, block: Block) -> str:
    """`5.0 GiB free`; nothing where that is not known."""
    status = scene.nodes.get(block.node) if block.node is not None else None
    known = status is not None and status.free_bytes is not None
    return f"{memory(status.free_bytes)} free" if status and known else ""


def gauge(scene: Scene, share: float, width: int) -> list[Span]:
    """A bar in two marks, warning when it is nearly full."""
    lit = round(min(1.0, max(0.0, share)) * width)
    ink = "error" if share > 0.97 else "warning" if share > 0.85 else "label"
    return [
        Span(scene.glyphs.gauge[0] * lit, ink),
        Span(scene.glyphs.gauge[1] * (width - lit), "track"),
    ]


def gpu_row(scene: Scene, block: Block, at: int, width: int) -> list[Span]:
    """`┌a gpu 0 · Arc B580 · ▅▅▁▁▁▁ 4.1/12.0 GiB · ▃ 34 % · 41 W · 56 °C`.

    Where it is narrow the card's name goes first, then the words beside the bar of its memory.
    """
    glyphs, index = scene.glyphs, block.gpus[at]
    slot = f"gpu:{index}"
    glow = scene.lit_slots.get(slot, "")
    join = bracket(scene.links, block.gpus, at, glyphs.brackets)
    ink = TINTS.get(scene.tints.get(slot, ""), "gpu")
    spans = [Span(join, "label"), gpu_owner(scene, index), Span(" ")]
    words = GpuWords.of(scene, index)
    head, name = [Span(words.head, ink)], [Span(words.name, "gpu")] if words.name else []
    memory, bar = [Span(words.memory, "gpu")], vram_gauge(scene, index)
    load = _gpu_load(scene, index, words.load)
    more = [[Span(each, "warning" if each == words.held else "gpu")] for each in words.more]
    choices = [
        [head, name, [*bar, Span(" "), *memory] if bar else memory, load],
        [head, [*bar, Span(" "), *memory] if bar else memory, load],
        [head, bar, load],
        *([head, name, memory], [head, name], [head]),
    ]
    room = width - 4
    parts = next((one for one in choices if _joined_width(one) <= room), [head])
    for each in more if parts in choices[:2] else []:
        if _joined_width([*parts, each]) > room:
            break
        parts = [*parts, each]
    dot = Span(" · ", "faint")
    for part in filter(None, parts):
        spans += [*([dot] if len(spans) > 3 else []), *part]
    shown = [Span(spelled(text, glyphs), ink, glow or own) for text, ink, own in spans]
    return shown if line_width(shown) <= width else [*cut(tuple(shown), width, glyphs.more)]


def vram_gauge(scene: Scene, index: int) -> list[Span]:
    """How full a GPU's memory is; nothing where that is not known."""
    status = scene.gpus.get(index)
    gpu = next((each for each in scene.machine.gpus if each.index == index), None)
    if status is None or status.memory_used_bytes is None or gpu is None or not gpu.memory_bytes:
        return []
    return gauge(scene, status.memory_used_bytes / gpu.memory_bytes, VRAM)


def _gpu_load(scene: Scene, index: int, words: str) -> list[Span]:
    """A mark and a number in the colour of the load, as PUs have them."""
    status = scene.gpus.get(index)
    at_work = level(status.busy) if status else None
    if at_work is None:
        return [Span(words, "muted")] if words else []
    return [Span(f"{scene.glyphs.levels[at_work]} {words}", heat(at_work))]


def _joined_width(parts: Sequence[Sequence[Span]]) -> int:
    there = [line_width(part) for part in parts if part]
    return sum(there) + len(" · ") * (len(there) - 1)


def gpu_owner(scene: Scene, index: int) -> Span:
    """The letter of who holds a GPU."""
    holders = scene.gpu_owners.get(index, ())
    if len(holders) > 1:
        return Span(scene.glyphs.several, "several")
    if holders:
        return Span(
            holders[0].letter, holders[0].ink + ("!" if holders[0] == scene.selected else "")
        )
    if index in scene.taken_gpus:
        return Span(scene.glyphs.taken, "taken")
    return Span(scene.glyphs.free, "faint")


def strip_row(plan: Plan, scene: Scene, piece: Piece, block: Block) -> list[Span]:
    """A whole NUMA node: `P0  N0   ▁▃▅█▁▁▁▁ ▅▅▅▁▁▁ a·`; on a second line only loads."""
    glyphs = scene.glyphs
    group = plan.groups[piece.group]
    numa, package = f"numa:{block.node}", f"package:{group.package}"
    is_first = piece.line == 0
    name = "" if block.node is None else f"N{block.node}"
    heads = is_first and group.package is not None and group.blocks[0] is block
    title = f"P{group.package}" if heads else ""
    spans = [
        Span(
            fit(title, PACKAGE, more=glyphs.more),
            TINTS.get(scene.tints.get(package, ""), "package"),
            scene.lit_slots.get(package, ""),
        ),
        Span(
            fit(name if is_first else "", NODE - 1, more=glyphs.more),
            TINTS.get(scene.tints.get(numa, ""), "title"),
            scene.lit_slots.get(numa, ""),
        ),
        Span(" "),
    ]
    two_lines = plan.is_deep
    for first in range(0, len(block.cores), piece.each):
        cores = block.cores[first : first + piece.each]
        glow = next((scene.lit_cores[core] for core in cores if core in scene.lit_cores), "")
        if two_lines and is_first:
            span = _holder(scene, cores)
        else:
            pus = [pu for core in cores for pu in scene.machine.cores[core].pus]
            span = load_span(scene, cores, pus, owned=not two_lines)
        spans.append(Span(span.text, span.ink, glow))
    if not block.cores:
        spans.append(Span("memory only" if block.node is not None else "no NUMA node", "muted"))
    used = sum(len(span.text) for span in spans)
    tail = piece.width - used - MEMORY - len(block.gpus) - bool(block.gpus)
    free = free_text(scene, block) if is_first else ""
    spans.append(Span(fit(free if len(free) < tail else "", max(0, tail), right=True), "muted"))
    if is_first:
        meter = memory_gauge(scene, block, MEMORY - 1)
        spans += [Span(" "), *(meter or [Span(" " * (MEMORY - 1))])]
        if block.gpus:
            spans.append(Span(" "))
        for gpu in block.gpus:
            owner = gpu_owner(scene, gpu)
            spans.append(Span(owner.text, owner.ink, scene.lit_slots.get(f"gpu:{gpu}", "")))
    else:
        spans.append(Span(" " * (MEMORY + bool(block.gpus))))
        for gpu in block.gpus:
            status = scene.gpus.get(gpu)
            busy = level(status.busy) if status else None
            mark = glyphs.unknown if busy is None else glyphs.levels[busy]
            spans.append(Span(mark, "faint" if busy is None else heat(busy)))
    return spans


def _holder(scene: Scene, cores: tuple[int, ...]) -> Span:
    """Who holds these cores: the one letter, `+` for several, free, taken or barred."""
    badges, rest = _badges(scene, cores)
    if len(badges) > 1 or (badges and rest.text == scene.glyphs.taken):
        return Span(scene.glyphs.several, "several")
    if badges:
        return Span(badges[0].letter, _ink(scene, badges[0]))
    return rest


def load_span(scene: Scene, cores: tuple[int, ...], pus: Sequence[int], *, owned: bool) -> Span:
    """How busy they are on average; `owned` gives the colour of who holds them."""
    badges, rest = _badges(scene, cores) if owned else ([], _NOBODY)
    if not badges and rest.text in (scene.glyphs.barred, scene.glyphs.taken) and owned:
        return rest
    known = [share for pu in pus if (share := scene.busy.get(pu)) is not None]
    at = level(sum(known) / len(known)) if known else None
    if at is None:
        return Span(scene.glyphs.unknown, "faint")
    ink = heat(at)
    if owned and badges:
        shared = len(badges) > 1 or rest.text == scene.glyphs.taken
        ink = "several" if shared else _ink(scene, badges[0])
    return Span(scene.glyphs.levels[at], ink)


def _ink(scene: Scene, badge: Badge) -> str:
    return badge.ink + ("!" if badge == scene.selected else "")


def _badges(scene: Scene, cores: tuple[int, ...]) -> tuple[list[Badge], Span]:
    """Who is there, and the mark for where nobody of ours is."""
    pus = [pu for core in cores for pu in scene.machine.cores[core].pus]
    badges = dict.fromkeys(badge for pu in pus for badge in scene.owners.get(pu, ()))
    glyphs = scene.glyphs
    if pus and not any(pu in scene.machine.pus.usable for pu in pus):
        return list(badges), Span(glyphs.barred, "barred")
    if any(pu in scene.taken for pu in pus):
        return list(badges), Span(glyphs.taken, "taken")
    return list(badges), Span(glyphs.free, "faint")
