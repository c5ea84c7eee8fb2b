"""Whether an instance may go to a slot: what is known at once, then what the service answers."""

from dataclasses import dataclass

from engine.control import Offer
from engine.core.errors import ControlError
from engine.core.topology import Machine
from tui.present.map_groups import slot_pus
from tui.present.map_scene import held
from tui.present.text import clean
from tui.view import View


@dataclass(frozen=True, slots=True)
class Legality:
    """A verdict with its sentence."""

    verdict: str
    """good, bad, or maybe until the service has answered."""
    text: str
    final: bool = False
    """True when there is no need to ask the service."""


def at_once(view: View, machine: Machine, name: str, slot: str | None) -> Legality:
    """The cheap facts: is it a slot, is it the same one, may we use it, who is there."""
    if slot is None:
        return Legality("maybe", "choose a slot on the map", final=True)
    instance = view.named(name)
    if instance is not None and instance.slot == slot:
        return Legality("maybe", f"{clean(name)} is placed on {slot} already", final=True)
    if slot.startswith("gpu:"):
        return Legality("maybe", f"asking whether {slot} fits…")
    pus = slot_pus(machine, slot)
    if not pus:
        return Legality("bad", f"{slot} has no PUs to run on", final=True)
    if not pus & machine.pus.usable:
        words = f"{slot} is not for us: its PUs are outside our cpuset or affinity"
        return Legality("bad", words, final=True)
    others = [each.name for each in view.instances if each.name != name and held(each) & pus]
    if others:
        names = ", ".join(clean(each) for each in others)
        return Legality("maybe", f"PUs of {slot} are held by {names}; asking…")
    return Legality("maybe", f"{slot} looks free; asking…")


def answered(offer: Offer, name: str, slot: str) -> Legality:
    """What the service's offer says about it."""
    if offer.refusals:
        refusal = offer.refusals[0]
        return Legality("bad", clean(f"refused: {refusal.why}. {refusal.do}"), final=True)
    placed = next((each for each in (*offer.moves, *offer.starts) if each.instance == name), None)
    if placed is None:
        return Legality("maybe", f"nothing would change on {slot}", final=True)
    memory = f"{placed.memory.policy} {placed.memory.nodes}".strip()
    warning = f"; {placed.warnings[0]}" if placed.warnings else ""
    text = f"can go to {slot}: PUs {placed.pus}, memory {memory}{warning}"
    return Legality("good", clean(text), final=True)


def unanswered(error: ControlError) -> Legality:
    """The service would not make an offer."""
    return Legality("bad", clean(f"{error.what}: {error.why}. {error.do}"), final=True)
