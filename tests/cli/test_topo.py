"""The machine as a picture: at 80 and 160 columns, in ASCII, for every odd machine."""

# ruff: noqa: E501 - a picture is as wide as it is
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cli.boxes import Box, Line, tiled
from engine.cli.picture import describe
from engine.core.cpuset import CpuSet, NodeSet
from engine.core.strangers import Stranger
from engine.core.synthetic import parse_synthetic
from engine.core.topology import Missing
from tests.cli.conftest import Said
from tests.kernel_files import ONLINE, cpu, tree
from tests.machines_by_hand import MACHINES, gpu, largest, narrowed, server, uneven

SERVER_160 = """\
2 packages, 4 NUMA nodes, 32 cores, 64 PUs, 4 GPUs, 256.0 GiB memory

╭─ package 0 ────────────────────────────────── 16 cores ─╮ ╭─ package 1 ────────────────────────────────── 16 cores ─╮
│ ┌─ NUMA node 0 ─────────────────────── 64.0 GiB DRAM ─┐ │ │ ┌─ NUMA node 2 ─────────────────────── 64.0 GiB DRAM ─┐ │
│ │ core 0-7: PU 0-7,32-39                              │ │ │ │ core 16-23: PU 16-23,48-55                          │ │
│ │   SMT siblings 0,32 1,33 to 7,39                    │ │ │ │   SMT siblings 16,48 17,49 to 23,55                 │ │
│ │ GPU 0-1: Arc A770, 16.0 GiB each                    │ │ │ └─────────────────────────────────────────────────────┘ │
│ │   driver xe, 16 GT/s x16, 0000:03:00.0 0000:04:00.0 │ │ │ ┌─ NUMA node 3 ─────────────────────── 64.0 GiB DRAM ─┐ │
│ │   BAR 16.0 GiB, Resizable BAR on, above 4G          │ │ │ │ core 24-31: PU 24-31,56-63                          │ │
│ └─────────────────────────────────────────────────────┘ │ │ │   SMT siblings 24,56 25,57 to 31,63                 │ │
│ ┌─ NUMA node 1 ─────────────────────── 64.0 GiB DRAM ─┐ │ │ │ GPU 2: Arc A770, 16.0 GiB                           │ │
│ │ core 8-15: PU 8-15,40-47                            │ │ │ │   driver xe, 16 GT/s x16, 0000:05:00.0              │ │
│ │   SMT siblings 8,40 9,41 to 15,47                   │ │ │ │   BAR 16.0 GiB, Resizable BAR on, above 4G          │ │
│ └─────────────────────────────────────────────────────┘ │ │ └─────────────────────────────────────────────────────┘ │
╰─────────────────────────────────────────────────────────╯ ╰─────────────────────────────────────────────────────────╯

GPUs of no known NUMA node:
  GPU 3: Arc A770, 16.0 GiB
    driver xe, 16 GT/s x16, 0000:06:00.0
    BAR 16.0 GiB, Resizable BAR on, above 4G

distances (10 = local):
           0   1   2   3
  node 0  10  12  21  21
  node 1  12  10  21  21
  node 2  21  21  10  12
  node 3  21  21  12  10

usable: PU 0-63, memory of NUMA node 0-3"""


def test_packages_stand_side_by_side_where_they_fit() -> None:
    cards = (gpu(0, 0), gpu(1, 0), gpu(2, 3), gpu(3, None))
    machine = replace(server(), gpus=cards)
    assert describe(machine, 160) == SERVER_160
    narrow = describe(machine, 80).splitlines()
    assert narrow[2].startswith("╭─ package 0 ──")
    assert next(line for line in narrow if "package 1" in line).startswith("╭─ package 1 ──")


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("name", sorted(MACHINES))
def test_every_machine_fits_the_terminal(name: str, width: int, ascii_only: bool) -> None:
    text = describe(MACHINES[name], width, ascii_only=ascii_only)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < 60
    assert text.isascii() or not ascii_only
    assert all(f"package {package.os_index}" in text for package in MACHINES[name].packages)
    assert all(f"node {node.os_index}" in text for node in MACHINES[name].numa_nodes)


def test_ascii() -> None:
    lines = describe(server(), 160, ascii_only=True).splitlines()
    assert lines[2].startswith("+- package 0 ------")
    assert lines[3].startswith("| +- NUMA node 0 ------")


def test_memory_without_cores_stands_with_its_nearest_node() -> None:
    lines = describe(MACHINES["memory-only"], 160).splitlines()
    (box,) = [line for line in lines if "NUMA node 2" in line and "─" in line]
    assert "512.0 GiB CXL" in box
    (near,) = [line for line in lines if "no cores" in line]
    assert "no cores, nearest to node 1" in near
    # In the right one of two packages.
    assert near.index("no cores") > lines[2].index("package 1")


def test_what_is_not_ours_is_told_where_it_stands_and_below() -> None:
    text = describe(narrowed(), 80)
    assert "core 5-7: PU 5-7,13-15, not ours to use" in text
    assert "memory not ours to use" in text
    assert "\nnot ours to use (cpuset or affinity): PU 2-7,10-11,13-15\n" in text
    assert "\nnot ours to use (cpuset): memory of NUMA node 1" in text
    assert "\noffline: PU 1,4,6" in describe(MACHINES["offline"], 80)


def test_distances_fit_whatever_their_number() -> None:
    assert "distances: 21 from each NUMA node to every other (10 = local)" in describe(largest())
    many = describe(parse_synthetic("pack:16 numa:2 core:1"), 80).splitlines()
    assert "  node 5: 10 to 5; 12 to 4; 20 to 0-3,6-31" in many
    assert "distances: 12 from each" in describe(uneven())
    assert "  node 2  21  14  10" in describe(MACHINES["memoryless"])


def test_a_kernel_without_numa_still_tells_its_memory() -> None:
    machine = replace(MACHINES["no-nodes"], memory_bytes=8 << 30)
    text = describe(machine, 80)
    assert text.startswith("1 package, 0 NUMA nodes, 4 cores, 8 PUs, 8.0 GiB memory\n")
    assert "core 0-3: PU 0-7" in text


def test_reasons_that_are_alike_become_one_line() -> None:
    machine = replace(
        server(),
        missing=(
            Missing("gpus[0].name", "0000:03:00.0: no name"),
            Missing("gpus[1].name", "0000:04:00.0: no name"),
            Missing("numa_nodes 4 kind", "nothing tells"),
            Missing("numa_nodes 5 kind", "nothing tells"),
            Missing("sys/devices/system/cpu/cpu3/topology/core_id", "not told"),
            Missing("distances", "absent"),
        ),
    )
    assert describe(machine, 80).splitlines()[-4:] == [
        "not known: gpus[0-1].name: no name",
        "not known: numa_nodes 4-5 kind: nothing tells",
        "not known: sys/devices/system/cpu/cpu3/topology/core_id: not told",
        "not known: distances: absent",
    ]


def test_names_from_a_file_reach_no_terminal_as_they_are() -> None:
    evil = replace(gpu(0, 0), name="\x1b]0;gone\x07" + "é" * 300)
    text = describe(replace(server(), gpus=(evil,)), 80)
    assert not {"\x1b", "\x07"} & set(text)
    assert max(map(len, text.splitlines())) <= 80
    assert describe(replace(server(), gpus=(evil,)), 80, ascii_only=True).isascii()


def test_usable_nodes_that_are_none() -> None:
    assert "memory of NUMA node –" in describe(replace(server(), usable_nodes=NodeSet()), 80)


def test_priority_cores_are_marked_and_the_mark_is_told() -> None:
    base = parse_synthetic("pack:2 core:64 pu:2 mem:1GiB")
    cores = tuple(
        replace(core, highest_perf=46 if index % 16 < 2 else 36)
        for index, core in enumerate(base.cores)
    )
    machine = replace(base, cores=cores)
    text = describe(machine, 80)
    assert "core 0-63: PU 0-63,128-191" in text  # in one line as before
    assert "  ▲ core 0-1,16-17,32-33,48-49 " in text
    assert "  ▲ core 64-65,80-81,96-97,112-113 " in text
    legend = "priority cores: may run faster, firmware ranks them 46 and the others 36"
    assert f"▲ {legend}" in text.splitlines()
    assert f"^ {legend}" in describe(machine, 80, ascii_only=True)
    assert "▲" not in describe(base, 80)
    clocks = [5_200_000, 5_200_000, 5_000_000, 4_900_000]
    desk = parse_synthetic("core:4")
    cores = tuple(
        replace(core, highest_perf=clock) for core, clock in zip(desk.cores, clocks, strict=True)
    )
    text = describe(replace(desk, cores=cores), 160)
    assert "firmware ranks them 5200000 and the others 4900000 to 5000000" in text


def held(
    pid: int, pus: str, gib: int, *, nodes: NodeSet | None = None, gpus: tuple[int, ...] = ()
) -> Stranger:
    return Stranger(
        pid, "python3", 1000, "alice", CpuSet.parse(pus), nodes, gpus, 1, gib << 30, 1.0
    )


def test_strangers_stand_under_the_picture() -> None:
    strangers = [
        held(900, "16-31", 8, nodes=NodeSet([1])),
        held(812, "0-15", 32),
        held(7, "", 1, gpus=(0, 1)),
    ]
    lines = describe(server(), 80, strangers=strangers).splitlines()
    assert lines[-5:] == [
        "",
        "held by programs that are not ours:",
        "  GPU 0-1: python3 (pid 7, alice), 1.0 GiB",
        "  PU 0-15: python3 (pid 812, alice), 32.0 GiB",
        "  PU 16-31: python3 (pid 900, alice), 8.0 GiB of NUMA node 1",
    ]
    assert lines[:-5] == describe(server(), 80).splitlines()
    many = [held(pid, str(pid % 64), pid) for pid in range(1, 31)]
    lines = describe(server(), 80, strangers=many).splitlines()
    assert lines[-1] == "  and 10 smaller ones"
    assert lines[-21] == "  PU 11: python3 (pid 11, alice), 11.0 GiB"
    scattered = held(5, ",".join(str(pu) for pu in range(0, 64, 2)), 1)
    text = describe(server(), 80, strangers=[scattered])
    assert max(map(len, text.splitlines())) <= 80


PINNED = """
import os
os.sched_setaffinity(0, [{pu}])
load = bytearray(os.urandom(1 << 20)) * 300
print("on", flush=True)
input()
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one PU nobody can be pinned")
@pytest.mark.parametrize("ours", [False, True])
def test_strangers_of_this_machine_and_not_our_own(
    say: Callable[..., Said], *, ours: bool
) -> None:
    pu = max(os.sched_getaffinity(0))
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", PINNED.format(pu=pu)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"SLOTDECK_INSTANCE": "a-1"} if ours else {},
    )
    try:
        assert child.stdout
        child.stdout.readline()
        told = json.loads(say("topo", "--json").out)["strangers"]
        found = [one for one in told if one["pid"] == child.pid]
        assert [(one["pus"], one["gpus"]) for one in found] == ([] if ours else [(str(pu), [])])
        assert (f"(pid {child.pid}, " in say("topo").out) == (not ours)
    finally:
        child.kill()
        child.communicate()


def test_of_another_machine_nobody_can_be_seen(say: Callable[..., Said]) -> None:
    told = json.loads(say("topo", "--json", "--synthetic", "core:2").out)
    assert "strangers" not in told
    assert "held by" not in say("topo", "--synthetic", "core:2").out


@pytest.mark.parametrize("ranks", [("36", "46"), ("36", "36")])
def test_ranks_of_cores_are_told_where_they_differ(
    say: Callable[..., Said], tmp_path: Path, ranks: tuple[str, str]
) -> None:
    files: dict[str, str | bytes] = {ONLINE: "0-1\n"}
    for pu, rank in enumerate(ranks):
        files |= cpu(pu, str(pu), core=str(pu))
        files[f"sys/devices/system/cpu/cpu{pu}/acpi_cppc/highest_perf"] = f"{rank}\n"
    root = tree(tmp_path / "machine", files).path
    cores = json.loads(say("topo", "--json", "--root", str(root)).out)["cores"]
    told = [core.get("highest_perf") for core in cores]
    assert told == ([36, 46] if len(set(ranks)) > 1 else [None, None])
    assert ("▲ core 1" in say("topo", "--root", str(root)).out) == (len(set(ranks)) > 1)


words = st.text("abc, ", max_size=30)
boxes = st.recursive(
    st.builds(Box, words, words, st.lists(st.builds(Line, words), max_size=3).map(tuple)),
    lambda inner: st.builds(
        Box,
        words,
        words,
        st.lists(st.builds(Line, words), max_size=2).map(tuple),
        st.lists(inner, max_size=4).map(tuple),
    ),
    max_leaves=8,
)


@given(st.lists(boxes, max_size=4), st.integers(40, 200))
def test_tiles_are_rectangles_no_wider_than_asked(some: list[Box], width: int) -> None:
    lines = tiled(some, width)
    assert all(len(line) <= width for line in lines)
    assert sum(line.count("└") + line.count("╰") for line in lines) == sum(
        line.count("┌") + line.count("╭") for line in lines
    )


def test_the_commands_own_options(say: Callable[..., Said], home: Path) -> None:
    spec = "pack:2 core:2 gpu:1*8GiB mem:1GiB"
    assert say("topo", "--ascii", "--synthetic", spec).out.isascii()
    drawn = say("topo", "--synthetic", spec).out
    assert drawn.splitlines()[2].startswith(("╭─ package 0", "+- package 0"))
    assert "GPU 1: made-up GPU, 8.0 GiB" in drawn
    assert say("topo", "--ascii", "--json").code == 2


@pytest.mark.parametrize("columns", [80, 160])
def test_it_honours_the_terminals_width(
    say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = say("topo", "--synthetic", "pack:2 core:8 pu:2 mem:1GiB").out.splitlines()
    assert max(map(len, lines)) <= columns
    assert ("package 1" in lines[2]) == (columns == 160)
