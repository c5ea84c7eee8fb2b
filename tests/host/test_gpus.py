"""GPUs from PCI and drm sysfs: hand-written trees, broken ones, and recorded cards."""

import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from engine.core.cpuset import CpuSet
from engine.core.topology import Gpu, Missing, shared_bridge
from engine.host.gpus import read_gpus
from engine.host.nodes import read_nodes
from engine.host.root import HostRoot
from tests.shared import needs, unpack
from tests.sysfs_tree import MEMORY, PREFETCH_64, UNSET, SysfsTree, recorded_card

GIB = 1 << 30
MIB = 1 << 20
LIE = ("2.5 GT/s PCIe", 1)
NODES = ((0, CpuSet.parse("0-7")), (1, CpuSet.parse("8-15")))


def read(tree: SysfsTree) -> tuple[tuple[Gpu, ...], dict[str, str]]:
    facts, missing = read_gpus(tree.root, NODES)
    return facts, {each.what: each.why for each in missing}


def arc_card(
    tree: SysfsTree,
    port: str,
    bus: int,
    *,
    device: int = 0xE20B,
    slot: tuple[str, int] = ("16.0 GT/s PCIe", 8),
    numa_node: int = 0,
    bar: tuple[int, int] = (0x7800000000, 16 * GIB),
    number: int = 0,
) -> str:
    """An Arc below a root or switch port: upstream port, downstream port, and the GPU itself."""
    up = f"{port}/0000:{bus:02x}:00.0"
    down = f"{up}/0000:{bus + 1:02x}:01.0"
    tree.bridge(up, slot)
    tree.bridge(down, LIE)
    return tree.function(
        f"{down}/0000:{bus + 2:02x}:00.0",
        device=device,
        numa_node=numa_node,
        near="0-7",
        driver="xe",
        link=LIE,
        best=LIE,
        bars=[(0xFB000000, 16 * MIB, 0x140204), (0, 0, 0), (*bar, PREFETCH_64)],
        drm=(f"card{number}", f"renderD{128 + number}"),
    )


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    return SysfsTree(tmp_path)


@pytest.fixture
def b580(tree: SysfsTree) -> SysfsTree:
    in_a_slot(tree)
    return tree


def test_a_card_behind_its_own_bridge(b580: SysfsTree) -> None:
    facts, missing = read(b580)
    assert list(facts) == [
        Gpu(
            index=0,
            pci="0000:03:00.0",
            vendor="8086",
            device="e20b",
            name="Arc B580",
            driver="xe",
            numa_node=0,
            memory_bytes=12 * GIB,
            bar_bytes=16 * GIB,
            bar_address=0x7800000000,
            link_gt_s=16.0,
            link_width=8,
            drm_card="card0",
            drm_render="renderD128",
            integrated=False,
            virtual_function=False,
            numa_node_derived=False,
            pci_path=("0000:00:01.0", "0000:01:00.0", "0000:02:01.0", "0000:03:00.0"),
            link_at=facts[0].link_at,
            link_best_gt_s=facts[0].link_best_gt_s,
            link_best_width=facts[0].link_best_width,
            bar_sizes_bytes=facts[0].bar_sizes_bytes,
        )
    ]
    assert "what an Arc B580 is sold with" in missing.pop("gpus[0].memory_bytes")
    assert missing == {}


def test_the_narrowest_port_on_the_way_is_the_link(tree: SysfsTree) -> None:
    tree.bridge("pci0000:00/0000:00:01.0", ("16.0 GT/s PCIe", 16))
    tree.bridge("pci0000:00/0000:00:01.0/0000:01:00.0", ("8.0 GT/s PCIe", 8), vendor=0x10B5)
    switch = "pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:00.0"
    tree.bridge(switch, ("16.0 GT/s PCIe", 16), vendor=0x10B5)
    arc_card(tree, switch, 3, slot=("16.0 GT/s PCIe", 16))
    (facts,), _ = read(tree)
    assert (facts.link_gt_s, facts.link_width) == (8.0, 8)
    assert facts.link_at == "0000:00:01.0"


def test_a_port_that_could_do_better_is_told(tree: SysfsTree) -> None:
    fast, slow = ("32.0 GT/s PCIe", 16), ("8.0 GT/s PCIe", 4)
    tree.function("pci0000:00/0000:00:01.0", class_code=0x060400, link=slow, best=fast)
    tree.function(
        "pci0000:00/0000:00:01.0/0000:01:00.0",
        vendor=0x10DE,
        device=0x2330,
        link=slow,
        best=("16.0 GT/s PCIe", 16),
    )
    (facts,), _ = read(tree)
    assert (facts.link_gt_s, facts.link_width) == (8.0, 4)
    assert (facts.link_best_gt_s, facts.link_best_width) == (16.0, 16)


def test_a_card_whose_bridge_is_hidden_has_no_known_link(tree: SysfsTree) -> None:
    # A guest sees the GPU alone below a virtual port that invents its own numbers.
    tree.bridge("pci0000:00/0000:00:01.0", ("32.0 GT/s PCIe", 32), vendor=0x1B36)
    tree.function("pci0000:00/0000:00:01.0/0000:01:00.0", device=0x56A0, link=LIE)
    (facts,), missing = read(tree)
    assert facts.link_gt_s is None
    assert facts.link_width is None
    assert "(2.5 GT/s x1) is never true" in missing["gpus[0].link_gt_s"]


def test_a_link_that_no_end_tells_is_not_guessed_from_the_others(tree: SysfsTree) -> None:
    tree.bridge("pci0000:00/0000:00:01.0", vendor=0x8086)
    tree.bridge("pci0000:00/0000:00:01.0/0000:01:00.0", vendor=0x10B5)
    switch = "pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:00.0"
    tree.bridge(switch, ("16.0 GT/s PCIe", 16), vendor=0x10B5)
    arc_card(tree, switch, 3, slot=("16.0 GT/s PCIe", 16))
    (facts,), missing = read(tree)
    assert facts.link_gt_s is None
    assert "either end" in missing["gpus[0].link_gt_s"]


def test_two_gpus_of_one_switch_share_it(tree: SysfsTree) -> None:
    port = "pci0000:40/0000:40:01.0"
    tree.bridge(port, ("16.0 GT/s PCIe", 16))
    tree.bridge(f"{port}/0000:41:00.0", ("16.0 GT/s PCIe", 16), vendor=0x10B5)
    for index in range(2):
        below = f"{port}/0000:41:00.0/0000:42:{index:02x}.0"
        tree.bridge(below, ("16.0 GT/s PCIe", 8), vendor=0x10B5)
        arc_card(tree, below, 0x43 + 3 * index, number=index)
    tree.bridge("pci0000:80/0000:80:01.0", ("16.0 GT/s PCIe", 16))
    arc_card(tree, "pci0000:80/0000:80:01.0", 0x81, numa_node=1, number=2)
    facts, _ = read(tree)
    assert shared_bridge(facts[0], facts[1]) == "0000:41:00.0"
    assert shared_bridge(facts[1], facts[2]) is None
    assert [each.link_width for each in facts] == [8, 8, 8]


def test_order_is_cards_then_integrated_then_others_then_accelerators(tree: SysfsTree) -> None:
    tree.function("pci0000:00/0000:00:02.0", device=0xA780, drm=("card1", "renderD129"))
    tree.function("pci0000:00/0000:00:0b.0", class_code=0x120000, device=0x7D1D)
    tree.bridge("pci0000:00/0000:00:01.0")
    tree.function("pci0000:00/0000:00:01.0/0000:01:00.0", vendor=0x10DE, device=0x2330)
    arc_card(tree, "pci0000:80/0000:80:01.0", 0x81, number=2)
    arc_card(tree, "pci0000:40/0000:40:01.0", 0x41, number=7)
    facts, missing = read(tree)
    assert [each.pci for each in facts] == [
        *("0000:43:00.0", "0000:83:00.0", "0000:00:02.0", "0000:01:00.0", "0000:00:0b.0")
    ]
    assert [each.integrated for each in facts] == [False, False, True, False, False]
    assert facts[2].memory_bytes is None
    assert "shares the processor's memory" in missing["gpus[2].memory_bytes"]
    assert facts[3].name is None


def test_the_console_of_a_server_is_no_gpu(tree: SysfsTree) -> None:
    tree.function("pci0000:00/0000:00:1c.0/0000:03:00.0", vendor=0x1A03, device=0x2000)
    tree.function("pci0000:00/0000:00:1d.0/0000:04:00.0", vendor=0x102B, device=0x0532)
    assert read(tree) == ((), {})


def test_a_machine_without_pci_says_so(tree: SysfsTree) -> None:
    assert read_gpus(tree.root, NODES) == (
        (),
        (Missing("gpus", "no PCI bus in /sys/devices"),),
    )
    tree.function("pci0000:00/0000:00:1f.0", class_code=0x060100)
    assert read_gpus(tree.root, NODES) == ((), ())


@pytest.mark.parametrize(
    ("told", "near", "node", "derived"),
    [
        (1, "0-7", 1, False),  # firmware's word counts, even against the PUs
        (-1, "8-15", 1, True),
        (-1, "8-11", 1, True),
        (-1, "0-15", None, False),
        (-1, "", None, False),
        (-1, "garbage", None, False),
        (7, "0-7", 0, True),  # a NUMA node that the kernel does not have
        (None, None, None, False),
    ],
)
def test_numa_node(
    tree: SysfsTree, told: int | None, near: str | None, node: int | None, derived: bool
) -> None:
    tree.function("pci0000:00/0000:00:05.0", device=0x0BDA, numa_node=told, near=near)
    (facts,), missing = read(tree)
    assert (facts.numa_node, facts.numa_node_derived) == (node, derived)
    assert ("gpus[0].numa_node" in missing) == (derived or node is None)


def test_numa_node_of_the_root_bus_serves_a_device_that_tells_nothing(tree: SysfsTree) -> None:
    tree.function("pci0000:80/0000:80:05.0", device=0x0BDA)
    tree.file("sys/devices/pci0000:80/pci_bus/0000:80/cpulistaffinity", "8-15")
    (facts,), _ = read(tree)
    assert (facts.numa_node, facts.numa_node_derived) == (1, True)


def test_on_a_machine_of_one_node_every_gpu_is_there(tree: SysfsTree) -> None:
    tree.function("pci0000:00/0000:00:05.0", device=0x0BDA, near="0-15")
    gpus, _ = read_gpus(tree.root, [(0, CpuSet(range(16)))])
    assert gpus[0].numa_node == 0


@pytest.mark.parametrize(
    ("bars", "size", "address"),
    [
        ([(0x80000000, 256 * MIB, MEMORY)], 256 * MIB, 0x80000000),
        ([(0xE000, 64, 0x40101), (0xFB000000, 16 * MIB, MEMORY)], 16 * MIB, 0xFB000000),
        ([(0, 8 * GIB, PREFETCH_64 | UNSET)], 8 * GIB, None),
        ([], None, None),
    ],
)
def test_the_largest_memory_bar(
    tree: SysfsTree,
    bars: Sequence[tuple[int, int, int]],
    size: int | None,
    address: int | None,
) -> None:
    tree.function("pci0000:00/0000:00:05.0", device=0x0BDA, bars=bars)
    (facts,), missing = read(tree)
    assert (facts.bar_bytes, facts.bar_address) == (size, address)
    assert ("gpus[0].bar_bytes" in missing) == (size is None)


def test_of_a_cut_resource_file_no_bar_is_the_largest(b580: SysfsTree) -> None:
    path = "/".join(("sys/devices/pci0000:00", *read(b580)[0][0].pci_path, "resource"))
    whole = (b580.path / path).read_text().splitlines()
    b580.file(path, "\n".join(whole[:2]))
    (facts,), missing = read(b580)
    assert facts.bar_bytes is None
    assert {"gpus[0].bar_bytes", "gpus[0].bar_address"} <= missing.keys()


def test_windows_of_virtual_functions_are_not_the_cards_bar(tree: SysfsTree) -> None:
    bars = [(0x80000000, 256 * MIB, MEMORY), *[(0, 0, 0)] * 6, (1 << 40, 64 * GIB, PREFETCH_64)]
    tree.function("pci0000:00/0000:00:05.0", device=0x0BDA, bars=bars)
    (facts,), _ = read(tree)
    assert facts.bar_bytes == 256 * MIB


@pytest.mark.parametrize(
    ("bar", "resize", "memory"),
    [
        (16 * GIB, None, 16 * GIB),
        (8 * GIB, None, None),  # the small card's largest, or the large card's at half
        (8 * GIB, 0x3F00, 8 * GIB),
        (256 * MIB, 0x7F00, 16 * GIB),
        (256 * MIB, None, None),
    ],
)
def test_an_a770_is_sold_with_two_sizes(
    tree: SysfsTree, bar: int, resize: int | None, memory: int | None
) -> None:
    folder = arc_card(tree, "pci0000:00/0000:00:01.0", 1, device=0x56A0, bar=(1 << 38, bar))
    if resize is not None:
        tree.file(f"{folder}/resource2_resize", f"{resize:016x}")
    (facts,), _ = read(tree)
    assert facts.memory_bytes == memory
    assert facts.bar_bytes == bar
    if resize is not None:
        assert facts.bar_sizes_bytes is not None
        assert facts.bar_sizes_bytes[0] == 256 * MIB


@pytest.mark.parametrize(
    ("files", "memory"),
    [
        ({"drm/card0/lmem_total_bytes": "17095983104"}, 17095983104),
        ({"tile0/physical_vram_size_bytes": "64000000000"}, 64000000000),
        (
            {
                "tile0/physical_vram_size_bytes": "64000000000",
                "tile1/physical_vram_size_bytes": "64000000001",
            },
            128000000001,
        ),
        ({"mem_info_vram_total": "25753026560"}, 25753026560),
        ({"mem_info_vram_total": "0"}, 12 * GIB),
        ({"mem_info_vram_total": "-5"}, 12 * GIB),
    ],
)
def test_the_drivers_word_on_memory_comes_first(
    b580: SysfsTree, files: dict[str, str], memory: int
) -> None:
    folder = read(b580)[0][0].pci_path
    for name, text in files.items():
        b580.file(f"sys/devices/pci0000:00/{'/'.join(folder)}/{name}", text)
    (facts,), missing = read(b580)
    assert facts.memory_bytes == memory
    assert ("gpus[0].memory_bytes" in missing) == (memory == 12 * GIB)


def test_a_slice_of_a_card_has_not_the_cards_memory(b580: SysfsTree) -> None:
    path = "/".join(read(b580)[0][0].pci_path)
    b580.link(f"sys/devices/pci0000:00/{path}/physfn", "sys/devices/pci0000:00/0000:00:01.0")
    (facts,), _ = read(b580)
    assert facts.virtual_function
    assert facts.memory_bytes is None


def test_domains_wider_than_16_bits(tree: SysfsTree) -> None:
    inside = "pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:01.0"
    tree.bridge(inside, ("16.0 GT/s PCIe", 16))
    tree.function(f"{inside}/10000:e1:00.0", device=0x0BDA, link=("16.0 GT/s PCIe", 16))
    tree.function("pci0000:ff/0000:ff:05.0", device=0x0BDA)
    facts, _ = read(tree)
    assert [each.pci for each in facts] == ["0000:ff:05.0", "10000:e1:00.0"]
    assert facts[1].pci_path == ("10000:e0:01.0", "10000:e1:00.0")


def test_a_tree_that_lost_its_links_is_walked(b580: SysfsTree) -> None:
    before, _ = read(b580)
    shutil.rmtree(b580.path / "sys/bus/pci/devices")
    after, _ = read(b580)
    assert after == before


def test_ids_come_from_uevent_or_config_where_their_files_are_gone(tree: SysfsTree) -> None:
    header = bytes.fromhex("86800be2") + b"\0" * 5 + bytes.fromhex("000003") + b"\0" * 52
    for bus, name, content in (
        ("41", "uevent", b"DRIVER=xe\nPCI_CLASS=30000\nPCI_ID=8086:E20B\n"),
        ("42", "config", header),
    ):
        folder = tree.function(f"pci0000:{bus}/0000:{bus}:00.0")
        for gone in ("class", "vendor", "device"):
            (tree.path / folder / gone).unlink()
        tree.file(f"{folder}/{name}", content)
    facts, _ = read(tree)
    assert [(each.vendor, each.device) for each in facts] == [("8086", "e20b")] * 2
    assert [each.driver for each in facts] == ["xe", None]


def test_a_device_of_unreadable_class_is_told_not_dropped(tree: SysfsTree) -> None:
    folder = tree.function("pci0000:00/0000:00:05.0")
    tree.file(f"{folder}/class", "")
    assert read(tree) == ((), {"gpus 0000:00:05.0": "its PCI class is not readable"})


GARBAGE = (
    None,
    b"",
    b"\xff\xfe\x00garbage\n",
    b"-1\n",
    b"99999999999999999999999\n",
    "folder",
    b"1",
    b"0x0",
)


def files_of(tree: SysfsTree) -> list[str]:
    return sorted(
        path.relative_to(tree.path).as_posix()
        for path in tree.path.rglob("*")
        if path.is_symlink() or path.is_file()
    )


def behind_a_switch(tree: SysfsTree) -> None:
    """Two cards behind one switch that firmware places nowhere, in a slot of half their width."""
    port = "pci0000:40/0000:40:01.0"
    tree.bridge(port, ("16.0 GT/s PCIe", 8))
    tree.bridge(f"{port}/0000:41:00.0", ("16.0 GT/s PCIe", 8), vendor=0x10B5)
    for index in range(2):
        below = f"{port}/0000:41:00.0/0000:42:{index:02x}.0"
        tree.bridge(below, ("16.0 GT/s PCIe", 16), vendor=0x10B5)
        arc_card(
            tree,
            below,
            0x43 + 3 * index,
            slot=("16.0 GT/s PCIe", 16),
            numa_node=-1,
            number=index,
        )


def in_a_slot(tree: SysfsTree) -> None:
    tree.bridge("pci0000:00/0000:00:01.0", ("16.0 GT/s PCIe", 8))
    arc_card(tree, "pci0000:00/0000:00:01.0", 1)


CONTRACT = [
    field
    for field in fields(Gpu)
    # A card of unknown vendor is numbered after Intel's; what has a default is told beside.
    if field.name != "index" and field.default is MISSING
]


@pytest.mark.parametrize("build", [in_a_slot, behind_a_switch])
@pytest.mark.parametrize("content", GARBAGE, ids=repr)
def test_each_file_broken_in_turn_never_crashes_or_invents(
    tree: SysfsTree, content: bytes | str | None, build: Callable[[SysfsTree], None]
) -> None:
    build(tree)
    whole = {each.pci: each for each in read(tree)[0]}
    for name in files_of(tree):
        path = tree.path / name
        kept = path.readlink() if path.is_symlink() else path.read_bytes()
        path.unlink()
        if content == "folder":
            path.mkdir()
        elif isinstance(content, bytes):
            path.write_bytes(content)
        facts, missing = read(tree)
        for one in facts:
            for field in CONTRACT:
                value = getattr(one, field.name)
                # What is broken is unknown; nothing else is ever told than what was right.
                assert value in (getattr(whole[one.pci], field.name), None), (name, field.name)
                if value is None:
                    assert f"gpus[{one.index}].{field.name}" in missing, (name, field.name)
        for lost in whole.keys() - {one.pci for one in facts}:
            # Without its entry on the bus the kernel does not have it.
            unplugged = content is None and name == f"sys/bus/pci/devices/{lost}"
            assert unplugged or (name.endswith("/class") and missing), name
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        if isinstance(kept, bytes):
            path.write_bytes(kept)
        else:
            path.symlink_to(kept)


# Recorded machines, where they are at hand.


@pytest.mark.parametrize(
    ("name", "device", "driver", "memory", "bar", "address"),
    [
        ("b580", "e20b", "xe", 12 * GIB, 16 * GIB, 0x7800000000),
        ("a380-xe", "56a5", "xe", 6 * GIB, 8 * GIB, 0x383800000000),
        ("a380-i915", "56a5", "i915", 6 * GIB, None, None),
    ],
)
def test_recorded_arc(
    tree: SysfsTree,
    name: str,
    device: str,
    driver: str,
    memory: int,
    bar: int | None,
    address: int | None,
) -> None:
    recorded_card(needs(f"machines/gpus/{name}.tar.bz2"), tree)
    facts, missing = read_gpus(tree.root, [(0, CpuSet(range(16)))])
    (one,) = facts
    assert (one.device, one.driver) == (device, driver)
    assert (one.bar_bytes, one.bar_address) == (bar, address)
    assert one.memory_bytes == memory
    assert one.link_gt_s is None
    assert one.drm_card is not None
    assert not one.integrated
    assert "gpus[0].link_gt_s" in {each.what for each in missing}
    if bar is not None:
        assert (one.numa_node, one.numa_node_derived) == (0, True)
        assert one.bar_sizes_bytes is not None
        assert max(one.bar_sizes_bytes) == bar


def test_recorded_b580_can_have_seven_bar_sizes(tree: SysfsTree) -> None:
    recorded_card(needs("machines/gpus/b580.tar.bz2"), tree)
    facts, _ = read_gpus(tree.root, [(0, CpuSet(range(16)))])
    assert facts[0].bar_sizes_bytes == tuple(256 * MIB << step for step in range(7))


def test_recorded_gpu_inside_a_processor(tree: SysfsTree) -> None:
    recorded_card(needs("machines/gpus/tigerlake.tar.bz2"), tree)
    facts, _ = read_gpus(tree.root, [(0, CpuSet(range(8)))])
    assert facts[0].integrated
    assert facts[0].driver == "xe"
    assert facts[0].memory_bytes is None


def test_recorded_guest_has_a_card_on_each_node(tmp_path: Path) -> None:
    with tarfile.open(needs("machines/g1.tar.gz")) as packed:
        unpack(packed, tmp_path)
    root = HostRoot(tmp_path / "dump")
    nodes = [(node.os_index, node.cpus) for node in read_nodes(root).nodes]
    gpus, _ = read_gpus(root, nodes)
    assert [(gpu.pci, gpu.numa_node, gpu.drm_card) for gpu in gpus] == [
        ("0000:21:00.0", 0, "card3"),
        ("0000:41:00.0", 1, "card2"),
        ("0000:61:00.0", 2, "card1"),
        ("0000:81:00.0", 3, "card0"),
    ]
    assert {gpu.driver for gpu in gpus} == {"virtio-pci"}
    assert {(gpu.link_gt_s, gpu.link_width) for gpu in gpus} == {(2.5, 1)}
