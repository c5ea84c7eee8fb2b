"""Whether carried instances may go to their slots, and what that costs: what is known at once,
then what the service answers."""

from dataclasses import dataclass

from engine.control import Offer, Seat
from engine.core.cpuset import CpuSet
from engine.core.errors import ControlError
from engine.core.strangers import holders, on
from engine.core.topology import Machine
from tui.drag import Cargo, Kind
from tui.present.footprint import Footprint, footprint
from tui.present.map_groups import slot_pus
from tui.present.map_scene import HOLDING, held
from tui.present.text import clean
from tui.present.units import count, memory
from tui.view import View


@dataclass(frozen=True, slots=True)
class Legality:
    """A verdict with its sentence."""

    verdict: str
    """good, bad, or maybe until the service has answered."""
    text: str
    final: bool = False
    """True when there is no need to ask the service."""


def at_once(view: View, machine: Machine, cargo: Cargo, shape: Footprint) -> Legality:
    """The cheap facts of all slots together: the worst verdict, and the words of each."""
    if not shape.seats:
        verdict = "maybe" if shape.why_not.startswith("choose") else "bad"
        return Legality(verdict, shape.why_not, final=True)
    told = [_seat(view, machine, cargo, seat) for seat in shape.seats]
    if len(told) == 1:
        return told[0]
    verdicts = [each.verdict for each in told]
    worst = next((one for one in ("bad", "maybe") if one in verdicts), "good")
    names = [clean(seat.name) for seat in shape.seats]
    text = "; ".join(f"{name}: {each.text}" for name, each in zip(names, told, strict=True))
    return Legality(worst, text, final=all(each.final for each in told))


def _seat(view: View, machine: Machine, cargo: Cargo, seat: Seat) -> Legality:
    slot, instance = seat.slot, view.named(seat.name)
    if instance is not None and instance.slot == slot and instance.state in HOLDING:
        return Legality("maybe", f"{clean(seat.name)} is placed on {slot} already", final=True)
    if slot.startswith("gpu:"):
        return _on_gpus(view, cargo, slot)
    pus = slot_pus(machine, slot)
    if not pus:
        return Legality("bad", f"{slot} has no PUs to run on", final=True)
    if not pus & machine.pus.usable:
        why = f"{slot} is not for us: its PUs are outside our cpuset or affinity"
        return Legality("bad", why, final=True)
    cores = CpuSet(pu for core in machine.cores if core.pus & pus for pu in core.pus)
    words = [
        count(sum(1 for core in machine.cores if core.pus & pus & machine.pus.usable), "core")
    ]
    verdict = "good"
    others = [
        each.name for each in view.instances if each.name not in cargo.names and held(each) & cores
    ]
    if others:
        verdict = "bad"
        words.append(f"overlaps {', '.join(clean(each) for each in others)}")
    theirs = on(view.snapshot.strangers if view.snapshot else (), cores)
    if theirs:
        verdict = "maybe" if verdict == "good" else verdict
        words.append(f"taken by {clean(holders(theirs))}")
    nodes = [node.os_index for node in machine.numa_nodes if node.cpus & pus]
    if len(nodes) > 1:
        verdict = "maybe" if verdict == "good" else verdict
        words.append(f"crosses NUMA nodes {CpuSet(nodes)}{_away(machine, nodes)}")
    room, enough = _memory(view, seat.name, nodes)
    if room:
        words.append(room)
        verdict = verdict if enough else "bad"
    if verdict == "good":
        words.insert(1, "free")
    return Legality(verdict, " · ".join(words))


def _away(machine: Machine, nodes: list[int]) -> str:
    costs = [machine.distance(a, b) for a in nodes for b in nodes if a != b]
    told = [cost for cost in costs if cost is not None]
    return f" (distance {max(told)}, 10 at home)" if told else ""


def _memory(view: View, name: str, nodes: list[int]) -> tuple[str, bool]:
    """What would be left of the nodes' memory, from what the instance has resident now."""
    instance = view.named(name)
    status = {each.os_index: each for each in view.snapshot.numa_nodes} if view.snapshot else {}
    free = [status[node].free_bytes for node in nodes if node in status]
    known = [each for each in free if each is not None]
    if not known:
        return "", True
    room = sum(known)
    if instance is None or instance.rss_bytes is None:
        return f"{memory(room)} free", True
    home = CpuSet(nodes)
    try:
        is_there = instance.state in HOLDING and bool(CpuSet.parse(instance.memory.nodes) & home)
    except ValueError:
        is_there = False
    if is_there:
        return f"{memory(room)} stays free", True
    if instance.rss_bytes > room:
        return f"needs {memory(instance.rss_bytes)}, {memory(room)} is free", False
    return f"{memory(room - instance.rss_bytes)} left of {memory(room)}", True


def _on_gpus(view: View, cargo: Cargo, slot: str) -> Legality:
    wanted = CpuSet.parse(slot[4:])
    others = [
        each.name
        for each in view.instances
        if each.name not in cargo.names and each.state in HOLDING and wanted.pus & set(each.gpus)
    ]
    if others:
        names = ", ".join(clean(each) for each in others)
        return Legality("bad", f"{slot} is held by {names}")
    theirs = on(view.snapshot.strangers if view.snapshot else (), gpus=wanted.pus)
    if theirs:
        return Legality("maybe", f"taken by {clean(holders(theirs))}; asking…")
    return Legality("maybe", f"{slot} looks free; asking whether it fits…")


def tints(view: View, machine: Machine, cargo: Cargo) -> dict[str, str]:
    """The verdict on every larger place, so that one sees at once where it can go."""
    if cargo.kind is Kind.RESIZE:
        return {}
    slots = [f"package:{each.os_index}" for each in machine.packages]
    slots += [f"numa:{each.os_index}" for each in machine.numa_nodes]
    slots += [f"gpu:{each.index}" for each in machine.gpus]
    return {
        slot: at_once(view, machine, cargo, footprint(view, machine, cargo, slot)).verdict
        for slot in slots
    }


def answered(offer: Offer, shape: Footprint) -> Legality:
    """What the service's offer says about it."""
    if offer.refusals:
        refusal = offer.refusals[0]
        return Legality("bad", clean(f"refused: {refusal.why}. {refusal.do}"), final=True)
    names = {seat.name for seat in shape.seats}
    placed = [each for each in (*offer.moves, *offer.starts) if each.instance in names]
    if not placed:
        return Legality("maybe", f"nothing would change on {shape.slot}", final=True)
    if len(placed) > 1:
        where = ", ".join(f"{each.instance} PUs {each.pus}" for each in placed)
        return Legality("good", clean(f"all fit: {where}"), final=True)
    only = placed[0]
    bound = f"{only.memory.policy} {only.memory.nodes}".strip()
    warning = f"; {only.warnings[0]}" if only.warnings else ""
    text = f"can go to {only.slot}: PUs {only.pus}, memory {bound}{warning}"
    return Legality("good", clean(text), final=True)


def unanswered(error: ControlError) -> Legality:
    """The service would not make an offer."""
    return Legality("bad", clean(f"{error.what}: {error.why}. {error.do}"), final=True)
