"""The map: every core once, nothing outside its width, clicks hit what is drawn there."""

from dataclasses import replace

import pytest

from engine.core.cpuset import CpuSet
from engine.core.topology import Machine
from tests.tui.machines import HUGE, SERVER, SMALL, made, odd
from tests.tui.scripted_control import instance, snapshot, two_instances
from tui.present.glyphs import ASCII
from tui.present.ink import line_width, plain
from tui.present.map_cells import map_row
from tui.present.map_groups import machine_groups, slot_pus
from tui.present.map_levels import level
from tui.present.map_parts import Plan, Scale
from tui.present.map_plan import map_plan
from tui.present.map_scene import map_scene, owners_of
from tui.present.map_titles import legend
from tui.present.map_walk import DIRECTIONS, first_slot, neighbour
from tui.view import View

EMPTY = replace(SMALL, packages=(), numa_nodes=(), cores=())
MACHINES = {
    "small": SMALL,
    "server": SERVER,
    "huge": HUGE,
    "odd": odd(),
    "one core": made(1, 1, 1),
    "many nodes": made(8, 4, 4, smt=2),
    "smt4": made(1, 2, 4, smt=4),
    "nothing": EMPTY,
}


def view_of(machine: Machine) -> View:
    return View(machine=machine, snapshot=snapshot(machine, two_instances()), selected="chat")


def text_of(plan: Plan, view: View, machine: Machine, **options: object) -> list[str]:
    scene = map_scene(view, machine, **options)  # type: ignore[arg-type]
    return [plain(map_row(plan, scene, y)) for y in range(plan.height)]


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("width", [12, 20, 40, 76, 120, 196])
@pytest.mark.parametrize("budget", [4, 9, 25])
def test_every_core_has_one_cell_inside_the_width(
    machine: Machine, width: int, budget: int
) -> None:
    plan = map_plan(machine, width, budget)
    cores = [area.slot for area in plan.areas if area.slot.startswith("core:")]
    shown = [core for slot in cores for core in CpuSet.parse(slot[5:])]
    assert sorted(shown) == list(range(len(machine.cores)))
    nodes = {area.slot for area in plan.areas if area.slot.startswith("numa:")}
    assert nodes == {f"numa:{node.os_index}" for node in machine.numa_nodes}
    view = view_of(machine)
    scene = map_scene(view, machine, target="numa:0", verdict="good")
    for y in range(plan.height):
        assert line_width(map_row(plan, scene, y)) <= max(width, 18)
    for area in plan.areas:
        assert (0 <= area.y < plan.height) == (area.slot not in plan.way)
        assert plan.slot_at(area.x, area.y) is not None


def test_a_cell_is_found_where_it_is_drawn() -> None:
    for machine in (SMALL, SERVER, HUGE):
        plan = map_plan(machine, 120, 20)
        for area in plan.areas:
            if area.slot.startswith("core:"):
                assert plan.slot_at(area.x, area.y) == area.slot
                assert plan.slot_at(area.x + area.width - 1, area.y) == area.slot


def test_scales_follow_the_room() -> None:
    assert map_plan(SMALL, 76, 8).scale is Scale.LARGE
    assert map_plan(SERVER, 196, 25).scale is Scale.LARGE
    assert map_plan(SERVER, 76, 9).scale is Scale.NORMAL
    assert map_plan(HUGE, 76, 9).scale is Scale.ROWS
    assert map_plan(HUGE, 76, 9, "numa:3").scale is Scale.DENSE


def test_the_small_machine_reads_like_this() -> None:
    plan = map_plan(SMALL, 60, 8)
    assert text_of(plan, view_of(SMALL), SMALL) == [
        "package 0 · 2 cores · PUs 0-1                               ",
        "╭─ NUMA 0 ─────────────── ▅▅▅▁▁▁▁▁ 5.0 GiB free of 8.0 GiB ╮",
        "│ c core 0 ────────────   0 % · core 1 ━━━━────────  37 %  │",
        "╰──────────────────────────────────────────────────────────╯",
    ]


def test_ascii_rows_are_ascii() -> None:
    for machine in MACHINES.values():
        plan = map_plan(machine, 100, 20)
        for row in text_of(plan, view_of(machine), machine, glyphs=ASCII):
            assert row.isascii(), row


def test_owners_letters_and_barred_cells() -> None:
    machine = odd()
    plan = map_plan(machine, 100, 7)
    assert plan.scale is Scale.NORMAL
    rows = "\n".join(text_of(plan, view_of(machine), machine))
    assert "c" in rows
    assert "×" in rows
    assert "no cores" in rows
    assert "gpu 9" in rows


def test_two_holders_of_a_pu_are_shown_as_shared() -> None:
    both = (instance("a", "core:0", "0"), instance("b", "core:0", "0"))
    view = View(machine=SMALL, snapshot=snapshot(SMALL, both))
    assert len(owners_of(view)[0]) == 2
    assert "+" in text_of(map_plan(SMALL, 60, 8), view, SMALL)[2]
    from tui.present.glyphs import UNICODE

    assert "shared" in plain(legend(view, UNICODE))


def test_stopped_and_garbled_instances_hold_nothing() -> None:
    broken = (instance("a", "core:0", "\x1b[31mzz"), *two_instances()[1:])
    assert owners_of(View(machine=SMALL, snapshot=snapshot(SMALL, broken))) == {}


def test_unknown_load_is_not_zero_load() -> None:
    moment = snapshot(SMALL, (), pus_busy=(None, 0.0))
    row = text_of(map_plan(SMALL, 60, 8), View(machine=SMALL, snapshot=moment), SMALL)[2]
    assert "–" in row
    assert "0 %" in row


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (None, None),
        (float("nan"), None),
        (-1.0, 0),
        (0.0, 0),
        (0.5, 4),
        (0.999, 7),
        (1.0, 7),
        (9, 7),
    ],
)
def test_level(share: float | None, expected: int | None) -> None:
    assert level(share) == expected


def test_a_node_that_spans_packages_has_a_block_in_each() -> None:
    base = made(2, 1, 4)
    everything = CpuSet(range(8))
    node = replace(base.numa_nodes[0], cpus=everything, packages=(0, 1))
    machine = replace(base, numa_nodes=(node,))
    groups = machine_groups(machine)
    assert [group.package for group in groups] == [0, 1]
    assert [block.node for group in groups for block in group.blocks] == [0, 0]


@pytest.mark.parametrize(
    ("slot", "pus"),
    [
        ("numa:1", "8-15,40-47"),
        ("core:3", "3,35"),
        ("package:1", "16-31,48-63"),
        ("core:99", ""),
        ("numa:x", ""),
        ("gpu:0", ""),
        ("", ""),
    ],
)
def test_pus_of_a_slot(slot: str, pus: str) -> None:
    assert str(slot_pus(SERVER, slot)) == pus


@pytest.mark.parametrize(
    "machine", [SMALL, SERVER, HUGE, odd()], ids=["small", "server", "huge", "odd"]
)
def test_arrows_reach_every_slot(machine: Machine) -> None:
    plan = map_plan(machine, 120, 20)
    start = first_slot(plan)
    assert start == "numa:0"
    seen, edge = {start}, [start]
    while edge:
        here = edge.pop()
        for direction in DIRECTIONS:
            there = neighbour(plan, here, direction)
            assert there is not None
            if there not in seen:
                seen.add(there)
                edge.append(there)
    wanted = {area.slot for area in plan.areas}
    assert wanted - seen == set()
