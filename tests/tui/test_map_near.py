"""The map near and far: zoom, rows of nodes, GPUs with their links and memory, strangers."""

from dataclasses import replace

import pytest

from engine.core.cpuset import CpuSet
from engine.core.status import GpuStatus
from engine.core.strangers import Stranger
from engine.core.topology import Gpu, Machine
from tests.tui.machines import GIB, HUGE, LARGEST, SERVER, SMALL, made, odd
from tests.tui.scripted_control import instance, snapshot
from tui.drag import Cargo, Kind
from tui.present.carry_text import carry_lines, ghost_text
from tui.present.catalogue_text import fresh_name
from tui.present.changes import changed_runs
from tui.present.footprint import footprint
from tui.present.glyphs import ASCII, UNICODE
from tui.present.gpu_links import bracket, gpu_links, link_words
from tui.present.ink import Span, merged, plain
from tui.present.legality import at_once
from tui.present.map_cells import map_row
from tui.present.map_groups import node_of, package_of
from tui.present.map_levels import heat
from tui.present.map_parts import Scale
from tui.present.map_plan import map_plan
from tui.present.map_scene import handles_of, holder, map_scene
from tui.present.map_titles import crumb_line, slot_text
from tui.present.map_walk import next_core
from tui.present.map_zoom import crumb, farther, nearer, path
from tui.view import View

STRANGER = Stranger(812, "py", 1001, "alice", CpuSet.parse("2"), None, (1,), 8, GIB, 9.0)


def rows(machine: Machine, view: View, width: int, budget: int, zoom: str = "machine") -> str:
    plan = map_plan(machine, width, budget, zoom)
    scene = map_scene(view, machine)
    return "\n".join(plain(map_row(plan, scene, y)).rstrip() for y in range(plan.height))


@pytest.mark.parametrize(
    ("machine", "zoom", "way"),
    [
        (SERVER, "machine", ("machine",)),
        (SERVER, "package:1", ("machine", "package:1")),
        (SERVER, "numa:3", ("machine", "package:1", "numa:3")),
        (SERVER, "core:31", ("machine", "package:1", "numa:3", "core:31")),
        (SMALL, "core:1", ("machine", "core:1")),
        (HUGE, "core:1000", ("machine", "package:7", "core:1000")),
        (made(1, 2, 4), "numa:1", ("machine", "numa:1")),
    ],
)
def test_the_way_there(machine: Machine, zoom: str, way: tuple[str, ...]) -> None:
    assert path(machine, zoom) == way
    assert farther(machine, zoom) == (way[-2] if len(way) > 1 else None)
    if len(way) > 1:
        assert nearer(machine, way[-2], zoom) == zoom
    assert nearer(machine, zoom, zoom) is None
    assert [area.slot for area in map_plan(machine, 100, 20, zoom).areas if area.y == -1] == list(
        way
    )


@pytest.mark.parametrize(
    ("slot", "step"),
    [
        ("gpu:1", "package:0"),
        ("pu:20", "package:1"),
        ("core:20", "package:1"),
        ("machine", None),
        ("core:999", None),
        ("gpu:99", None),
        (None, None),
    ],
)
def test_the_next_step_towards_the_cursor(slot: str | None, step: str | None) -> None:
    assert nearer(SERVER, "machine", slot) == step


def test_places_of_slots() -> None:
    assert (node_of(SERVER, "gpu:1"), package_of(SERVER, "gpu:1")) == (1, 0)
    assert (node_of(SERVER, "core:24-26"), package_of(SERVER, "core:24-26")) == (3, 1)
    assert (node_of(SERVER, "numa:9"), package_of(SERVER, "numa:9")) == (None, None)
    assert (node_of(odd(), "gpu:9"), package_of(odd(), "pu:40")) == (None, None)
    assert crumb("numa:2") == "NUMA 2"


def test_a_part_shows_only_itself() -> None:
    for zoom, cores in (("package:1", range(16, 32)), ("numa:0", range(8)), ("core:5", [5])):
        plan = map_plan(SERVER, 120, 20, zoom)
        shown = [area.slot for area in plan.areas if area.slot.startswith("core:") and area.y >= 0]
        assert sorted(shown) == sorted(f"core:{core}" for core in cores)
    assert map_plan(SERVER, 120, 20, "numa:77").groups == map_plan(SERVER, 120, 20).groups


def test_single_pus_can_be_chosen_from_near() -> None:
    plan = map_plan(SERVER, 120, 20, "numa:0")
    assert plan.scale is Scale.LARGE
    for slot in ("pu:0", "pu:39"):
        area = plan.area(slot)
        assert area is not None
        assert plan.slot_at(area.x, area.y) == slot
    assert map_plan(SERVER, 120, 20).area("pu:0") is None
    assert map_plan(SMALL, 120, 20, "core:0").area("pu:0") is None  # the core is the PU


def test_a_large_machine_from_afar() -> None:
    holds = (instance("chat", "numa:1", "128-255"), instance("card", "gpu:2", "200", gpus=(2,)))
    view = View(LARGEST, snapshot(LARGEST, holds, strangers=(STRANGER,)), selected="chat")
    plan = map_plan(LARGEST, 76, 8)
    assert (plan.scale, plan.height) == (Scale.ROWS, 8)
    text = rows(LARGEST, view, 76, 8).split("\n")
    assert text[0].startswith("P0  N0   ▒")  # the stranger's core is one of the first three
    assert text[1].startswith("P1  N1   ")
    assert text[1].endswith("5.0 GiB free ▅▅▅▅▅▅ c·".replace("c", text[1][-2]))
    assert text[0].endswith("·▒")
    area = plan.area("core:0-2")
    assert area is not None
    assert plan.slot_at(area.x, area.y) == "core:0-2"
    assert plan.slot_at(0, 3) == "package:3"
    assert plan.slot_at(5, 3) == "numa:3"
    two_lines = rows(LARGEST, view, 76, 16).split("\n")
    assert len(two_lines) == 16
    assert "c" * 20 in two_lines[2]


def test_rows_name_memory_only_nodes_and_show_what_has_none() -> None:
    text = rows(odd(), View(odd(), snapshot(odd(), ())), 76, 4)
    assert "memory only" in text
    assert "None" not in text
    assert text.endswith("·")  # the GPU of which firmware tells no node


def gpu(index: int, *path_to: str, **changes: object) -> Gpu:
    base = replace(LARGEST.gpus[0], index=index, pci=path_to[-1], pci_path=path_to)
    return replace(base, **changes)  # type: ignore[arg-type]


def test_links_between_gpus() -> None:
    cards = (
        gpu(0, "root1", "switch1", "a"),
        gpu(1, "root1", "switch1", "b"),
        gpu(2, "root1", "switch2", "c"),
        gpu(3, "root2", "d"),
        gpu(4, "e", pci_path=()),
    )
    machine = replace(SERVER, gpus=cards)
    links = gpu_links(machine)
    assert (links[0].kind, links[0].peers) == ("switch", (1,))
    assert (links[2].kind, links[2].bridge, links[2].peers) == ("root port", "root1", (0, 1))
    assert 3 not in links
    column = (0, 1, 2, 3)
    assert [bracket(links, column, at, "TMB.") for at in range(4)] == ["T", "B", "B", "."]
    assert link_words(cards[0], machine, links) == "below one switch with gpu 1"
    assert link_words(cards[3], machine, links) == "other GPUs by way of the processor"
    assert link_words(cards[4], machine, links) == "links to other GPUs not told"
    assert link_words(cards[3], replace(machine, gpus=cards[3:4]), {}) == ""


def test_a_gpu_row_has_its_memory_load_and_holder() -> None:
    card = instance("card", "gpu:0", "0", gpus=(0,))
    moment = snapshot(
        SERVER,
        (card,),
        strangers=(STRANGER,),
        gpus=(
            GpuStatus(0, 0.34, 8 * GIB, 41.0, 56.0, throttle=("pl1",)),
            GpuStatus(1, unknown=dict.fromkeys(("busy", "power_w"), "it sleeps")),
        ),
    )
    text = rows(SERVER, View(SERVER, moment), 196, 25)
    assert "c gpu 0 · ▅▅▅▁▁▁ 8.0/16.0 GiB · ▃ 34 %" in text
    assert "c gpu 0 · ▅▅▅▁▁▁ · ▃ 34 %" in rows(SERVER, View(SERVER, moment), 130, 25)
    near = rows(SERVER, View(SERVER, moment), 196, 25, "numa:0")
    assert "8.0/16.0 GiB · ▃ 34 % · held down by pl1 · 41 W · 56 °C" in near
    assert "▒ gpu 1 · Arc A770 · 16.0 GiB · not measured" in text
    view = View(SERVER, moment)
    assert slot_text(view, "gpu:0").startswith("gpu:0 · Arc A770 · 8.0/16.0 GiB · 34 %")
    assert slot_text(view, "gpu:0").endswith("held down by pl1")
    assert "taken by py (pid 812, alice)" in slot_text(view, "gpu:1")
    assert slot_text(view, "gpu:1").endswith("not measured: it sleeps")
    partly = replace(moment, gpus=(GpuStatus(0, 0.3, unknown={"power_w": "no counter"}),))
    assert slot_text(View(SERVER, partly), "gpu:0").endswith("no power: no counter")
    assert slot_text(view, "core:2") == "core:2 · PUs 2,34 · taken by py (pid 812, alice)"


def test_who_shares_a_core_with_a_stranger_is_marked() -> None:
    view = View(SMALL, snapshot(SMALL, (instance("a", "core:0", "0-1"),)))
    theirs = replace(STRANGER, pus=CpuSet([1]))
    both = replace(view, snapshot=snapshot(SMALL, view.instances, strangers=(theirs,)))
    assert "+" not in rows(SMALL, view, 60, 8)
    assert "+ core 1" in rows(SMALL, both, 60, 8)


def test_handles_and_holders() -> None:
    four, two_pieces = instance("a", "core:4-7", "4-7"), instance("b", "pu:0,2", "0,2")
    card = instance("c", "gpu:0", "9-10", gpus=(0,))
    view = View(SERVER, snapshot(SERVER, (four, two_pieces, card)))
    assert handles_of(SERVER, four) == {4: 0, 7: 1}
    assert handles_of(SERVER, two_pieces) == {}
    assert handles_of(SERVER, card) == {}
    assert handles_of(SERVER, None) == {}
    assert [holder(view, SERVER, slot) for slot in ("core:5", "pu:36", "gpu:0", "core:20")] == [
        *("a", None, "c"),
        None,
    ]


def test_arrows_go_on_in_the_order_of_cores() -> None:
    plan = map_plan(SERVER, 76, 9)
    assert next_core(plan, "core:7", "right") == "core:8"
    assert next_core(plan, "core:0", "left") == "core:0"
    assert (next_core(plan, "numa:0", "right") or "").startswith("core:")


def test_words_while_carrying_fit_and_are_ascii_where_asked() -> None:
    view = View(SERVER, snapshot(SERVER, (instance("a", "core:4-7", "4-7"),)))
    from tui.drag import Carry, move

    for cargo, slot in (
        (move("a"), "core:12"),
        (Cargo(Kind.RESIZE, ("a",), anchor=4), None),
        (Cargo(Kind.DRAW, ("new",), anchor=4), "numa:2"),
        (move("a", "b"), "numa:2"),
    ):
        carry = Carry(cargo, slot, 0, 0, by_mouse=True, at=0.0)
        shape = footprint(view, SERVER, cargo, slot)
        cost = at_once(view, SERVER, cargo, shape)
        for glyphs in (UNICODE, ASCII):
            for width in (20, 78, 180):
                for line in carry_lines(carry, shape, cost, cost, width, glyphs):
                    assert len(plain(line)) <= width
                    assert glyphs is UNICODE or plain(line).isascii()
        assert cargo.names[0] in ghost_text(carry, shape, cost)


@pytest.mark.parametrize(
    ("model", "taken", "name"),
    [
        ("bundled:smollm2-135m", (), "smollm2-135m"),
        ("bundled:smollm2-135m", ("smollm2-135m",), "smollm2-135m-2"),
        ("/models/Qwen2.5 7B/", (), "qwen2-5-7b"),
        ("/hub/models--meta--Llama-3.1-8B/snapshots/abc", (), "llama-3-1-8b"),
        ("///", (), "new"),
        ("/m/" + "x" * 90, (), "x" * 20),
    ],
)
def test_a_new_name_comes_from_the_model(model: str, taken: tuple[str, ...], name: str) -> None:
    assert fresh_name(model, taken) == name


def test_breadcrumbs_show_where_the_cursor_is() -> None:
    scene = map_scene(View(SERVER), SERVER, cursor="machine")
    line = crumb_line(("machine", "package:1"), scene)
    assert plain(line) == "machine › package 1"
    assert line[0].glow == "cursor"


# Fewer bytes


def test_blanks_take_the_ink_before_them() -> None:
    line = (Span("a", "owner:1"), Span("▁", heat(0)), Span(" "), Span("b", "owner:1"))
    assert merged(line, blanks=True) == (
        Span("a", "owner:1"),
        Span("▁ ", heat(0)),
        Span("b", "owner:1"),
    )
    marked = (Span("a", "owner:1!"), Span(" "), Span("▀", "heat:1:3"), Span(" "))
    assert merged(marked, blanks=True) == marked  # there the ground would show
    glowing = (Span("a", "text"), Span(" ", "", "good"))
    assert merged(glowing, blanks=True) == glowing


def test_a_blank_of_another_ink_has_not_changed() -> None:
    assert changed_runs((Span("a ", "text"),), (Span("a", "text"), Span(" ", "muted"))) == []
    assert changed_runs((Span("a ", "text"),), (Span("a", "text"), Span(" ", "brand"))) == [(1, 1)]


def test_eight_heights_share_four_colours() -> None:
    assert len({heat(at) for at in range(8)}) == 4
    assert heat(2, 7) == "heat:3:7"
