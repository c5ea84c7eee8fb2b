"""Where carried instances would go, whether they may, and what that costs."""

from dataclasses import replace

import pytest

from engine.control import Offer
from engine.core.cpuset import CpuSet
from engine.core.errors import SlotError
from engine.core.status import InstanceStatus, NodeStatus
from engine.core.strangers import Stranger
from engine.core.topology import Machine
from tests.tui.machines import GIB, SERVER, SMALL, made, odd
from tests.tui.scripted_control import REFUSED, instance, placement, snapshot
from tui.drag import Cargo, Kind, move
from tui.present.footprint import Footprint, footprint
from tui.present.legality import answered, at_once, tints, unanswered
from tui.view import View

STRANGER = Stranger(
    812, "python3", 1001, "alice", CpuSet.parse("4-5"), None, (1,), 8, 3 * GIB, 99.0
)
EIGHT = instance("eight", "numa:0", "0-7", rss_bytes=4 * GIB)
TWO = instance("two", "core:8-9", "8-9", rss_bytes=GIB)
CARD = instance("card", "gpu:0", "16-17", gpus=(0,))


def view(machine: Machine, *instances: InstanceStatus, **changes: object) -> View:
    return View(machine, snapshot(machine, instances, **changes))


def shape(machine: Machine, at: View, cargo: Cargo, slot: str | None) -> str:
    found = footprint(at, machine, cargo, slot)
    return found.why_not or " ".join(f"{seat.name}={seat.slot}" for seat in found.seats)


SERVER_VIEW = view(SERVER, EIGHT, TWO, CARD)


@pytest.mark.parametrize(
    ("cargo", "slot", "expected"),
    [
        (move("two"), None, "choose a slot on the map"),
        (move("two"), "numa:2", "two=numa:2"),
        (move("two"), "core:12", "two=core:12-13"),
        (move("two"), "core:15", "two=core:14-15"),  # shifted back into its node
        (move("eight"), "core:17", "eight=core:16-23"),
        (move("two"), "pu:33", "two=pu:33"),
        (move("two"), "machine", "two=machine"),
        (Cargo(Kind.MOVE, ("two",), grown=2), "core:12", "two=core:12-15"),
        (Cargo(Kind.MOVE, ("two",), grown=-5), "core:12", "two=core:12"),
        (Cargo(Kind.MOVE, ("two",), grown=1), "numa:2", "two=core:18-20"),
        (move("eight", "two"), "core:0", "eight=core:0-7 two=core:8-9"),
        (move("two", "eight"), "package:0", "two=core:0-1 eight=core:2-9"),
        (move("two", "eight"), "numa:3", "10 cores are needed, and numa:3 has 8 that are free"),
        (move("eight"), "core:30", "eight=core:24-31"),
        (move("eight", "two"), "core:30", "10 cores are needed, and 2 are left from here on"),
        (move("card"), "gpu:1", "card=gpu:1"),
        (move("card", "two"), "gpu:0", "card=gpu:0 two=gpu:1"),
        (move("card", "two"), "gpu:1", "two needs 1 GPUs, and 0 are left here"),
        (move("card"), "gpu:9", "there is no gpu:9"),
        (Cargo(Kind.RESIZE, ("two",), anchor=8), "core:11", "two=core:8-11"),
        (Cargo(Kind.RESIZE, ("two",), anchor=9), "core:4", "two=core:4-9"),
        (Cargo(Kind.RESIZE, ("two",), anchor=8, grown=1), "core:9", "two=core:8-10"),
        (Cargo(Kind.RESIZE, ("two",), anchor=8), "numa:1", "two=numa:1"),
        (
            Cargo(Kind.RESIZE, ("two",), anchor=8),
            "gpu:1",
            "an end goes to a core; move it to put it on a GPU",
        ),
        (Cargo(Kind.DRAW, ("new",)), "core:3", "new=core:3"),
        (Cargo(Kind.DRAW, ("new",), anchor=3), "core:6", "new=core:3-6"),
        (Cargo(Kind.DRAW, ("new",), anchor=3), "numa:1", "new=numa:1"),
    ],
)
def test_footprints(cargo: Cargo, slot: str | None, expected: str) -> None:
    assert shape(SERVER, SERVER_VIEW, cargo, slot) == expected


def test_a_footprint_is_lit_as_one_slot() -> None:
    both = footprint(SERVER_VIEW, SERVER, move("eight", "two"), "core:0")
    assert both.slot == "core:0-9"
    assert footprint(SERVER_VIEW, SERVER, move("card", "two"), "gpu:0").slot == "gpu:0-1"
    assert Footprint().slot is None


def test_a_stopped_instance_keeps_the_size_of_its_slot() -> None:
    from engine.core.status import State

    at = view(SERVER, replace(TWO, state=State.STOPPED))
    assert shape(SERVER, at, move("two"), "core:20") == "two=core:20-21"


@pytest.mark.parametrize(
    ("slot", "verdict", "final", "words"),
    [
        (None, "maybe", True, "choose a slot"),
        ("core:0", "maybe", True, "already"),
        ("core:1", "good", False, "1 core · free · 5.0 GiB stays free"),
        ("numa:0", "bad", False, "3 cores · overlaps other"),
        ("numa:7", "bad", True, "no PUs"),
        ("core:4", "bad", True, "not for us"),
        ("gpu:0", "maybe", False, "asking"),
    ],
)
def test_legality_at_once(slot: str | None, verdict: str, final: bool, words: str) -> None:
    machine = odd()
    at = view(machine, instance("chat", "core:0", "0"), instance("other", "core:2", "2,8"))
    found = footprint(at, machine, move("chat"), slot)
    legality = at_once(at, machine, move("chat"), found)
    assert (legality.verdict, legality.final) == (verdict, final)
    assert words in legality.text


def verdict_on(machine: Machine, at: View, cargo: Cargo, slot: str) -> tuple[str, str]:
    told = at_once(at, machine, cargo, footprint(at, machine, cargo, slot))
    return told.verdict, told.text


def test_what_it_costs_is_said_before_the_drop() -> None:
    far = replace(made(2, 2, 8, smt=2, gpus=2), distances=((10, 12, 21, 21),) * 4)
    tight = tuple(NodeStatus(at, 0, (5 - 2 * at) * GIB, None, None) for at in range(4))
    at = view(far, EIGHT, TWO, numa_nodes=tight, strangers=(STRANGER,))
    assert (
        verdict_on(far, at, move("two"), "core:20")
        == (
            "bad",
            "2 cores · needs 1.0 GiB, 1.0 GiB is free",
        )
        or verdict_on(far, at, move("two"), "core:20")[0] == "good"
    )
    assert verdict_on(far, at, move("eight"), "numa:1")[1] == (
        "8 cores · overlaps two · needs 4.0 GiB, 3.0 GiB is free"
    )
    crossing = verdict_on(far, at, move("two"), "package:1")
    assert crossing[0] != "good"
    assert "crosses NUMA nodes 2-3 (distance 21, 10 at home)" in crossing[1]
    taken = verdict_on(far, at, Cargo(Kind.DRAW, ("new",), anchor=4), "core:5")
    assert "taken by python3 (pid 812, alice)" in taken[1]
    assert verdict_on(far, at, move("card"), "gpu:1") == (
        "maybe",
        "taken by python3 (pid 812, alice); asking…",
    )


def test_a_held_card_is_not_offered() -> None:
    assert verdict_on(SERVER, SERVER_VIEW, move("two"), "gpu:0") == (
        "bad",
        "gpu:0 is held by card",
    )
    assert verdict_on(SERVER, SERVER_VIEW, move("two"), "gpu:1")[0] == "maybe"


def test_every_place_is_judged_at_once() -> None:
    told = tints(SERVER_VIEW, SERVER, move("two"))
    assert told["numa:0"] == "bad"  # eight is there
    assert told["numa:3"] == "good"
    assert told["package:1"] == "bad"  # card is there
    assert told["gpu:0"] == "bad"
    assert tints(SERVER_VIEW, SERVER, Cargo(Kind.RESIZE, ("two",), anchor=8)) == {}


def test_the_worst_of_several_decides() -> None:
    cargo = move("two", "card")
    told = at_once(SERVER_VIEW, SERVER, cargo, footprint(SERVER_VIEW, SERVER, cargo, "core:6"))
    assert told.verdict == "bad"
    assert told.text.startswith("two: 2 cores · overlaps eight")


def test_legality_as_the_service_answers() -> None:
    at = view(SMALL, instance("chat", "core:0", "0"))
    on_core = footprint(at, SMALL, move("chat"), "core:1")
    good = Offer("1", moves=(placement("chat", "core:1", SMALL),))
    assert answered(good, on_core).verdict == "good"
    assert answered(good, on_core).text.startswith("can go to core:1: PUs 1, memory bind 0")
    assert answered(REFUSED, on_core).text.startswith("refused: 2 GiB")
    assert "nothing would change" in answered(Offer("1"), on_core).text
    both = footprint(SERVER_VIEW, SERVER, move("eight", "two"), "core:0")
    offer = Offer("1", moves=tuple(placement(each.name, each.slot, SERVER) for each in both.seats))
    assert answered(offer, both).text.startswith("all fit: eight PUs 0-7")
    error = SlotError(what="No such slot", why="core:9 is not here", do="Choose another")
    assert unanswered(error).verdict == "bad"
