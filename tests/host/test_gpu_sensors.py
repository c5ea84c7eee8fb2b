"""Clock, heat, energy, throttling and memory: of recorded cards, and of files written by hand."""

import shutil
from pathlib import Path

import pytest

from engine.core.cpuset import CpuSet
from engine.host.gpu_sensors import ASLEEP, GpuReading, GpuSensors
from engine.host.gpus import read_gpus
from tests.shared import needs
from tests.sysfs_tree import SysfsTree, recorded_card


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    return SysfsTree(tmp_path)


def card(tree: SysfsTree, name: str) -> tuple[GpuSensors, str]:
    """A recorded card and its folder."""
    recorded_card(needs(f"machines/gpus/{name}.tar.bz2"), tree)
    (gpu,), _ = read_gpus(tree.root, [(0, CpuSet(range(4)))])
    return GpuSensors(tree.root, gpu), f"sys/bus/pci/devices/{gpu.pci}"


@pytest.mark.parametrize(
    ("name", "energy", "celsius", "mhz"),
    [
        ("b580", (("card", 11031745544), ("pkg", 19014248107)), 54.0, 0.0),
        ("a380-xe", (("pkg", 59540970520),), 56.0, 0.0),
        ("a380-i915", (("", 25637161804),), 55.0, 600.0),
    ],
)
def test_recorded_cards(
    tree: SysfsTree, name: str, energy: tuple[tuple[str, int], ...], celsius: float, mhz: float
) -> None:
    sensors, _ = card(tree, name)
    assert sensors.read() == GpuReading(
        energy_uj=energy, temperature_c=celsius, frequency_mhz=mhz, throttle=()
    )


def test_a_gpu_inside_a_processor_says_what_it_has_not(tree: SysfsTree) -> None:
    sensors, _ = card(tree, "tigerlake")
    reading = sensors.read()
    assert (reading.frequency_mhz, reading.throttle) == (0.0, ())
    assert set(reading.unknown) == {"power_w", "temperature_c"}


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("b580", "tile0/gt0/freq0/throttle/status", "tile0/gt0/freq0/throttle/reason_"),
        (
            "a380-i915",
            "drm/card1/gt/gt0/throttle_reason_status",
            "drm/card1/gt/gt0/throttle_reason_",
        ),
    ],
)
def test_what_holds_a_clock_down(tree: SysfsTree, name: str, status: str, reason: str) -> None:
    sensors, folder = card(tree, name)
    tree.file(f"{folder}/{status}", "1")
    assert sensors.read().throttle == ("a reason that is not told",)
    for word in ("thermal", "pl1"):
        tree.file(f"{folder}/{reason}{word}", "1")
    assert sensors.read().throttle == ("pl1", "thermal")


def test_a_card_that_sleeps_is_left_alone(tree: SysfsTree) -> None:
    sensors, folder = card(tree, "b580")
    tree.file(f"{folder}/power/runtime_status", "suspended")
    shutil.rmtree(tree.path / folder / "hwmon")  # whoever reads there gets nothing
    reading = sensors.read()
    assert set(reading.unknown.values()) == {ASLEEP}
    assert reading.energy_uj == ()


def test_root_sees_the_memory_of_every_tile(tree: SysfsTree) -> None:
    recorded_card(needs("machines/gpus/b580.tar.bz2"), tree)
    (gpu,), _ = read_gpus(tree.root, [(0, CpuSet(range(4)))])
    for tile, used in (("tile0", 32079872), ("tile1", 1 << 20)):
        text = f"  use_tt: 0\n  size: 8522825728\n  usage: {used}\nvisible_size: 8128MiB"
        tree.file(f"sys/kernel/debug/dri/{gpu.pci}/{tile}/vram_mm", text)
    assert GpuSensors(tree.root, gpu).read().memory_used_bytes == 32079872 + (1 << 20)


def test_unreadable_sensors_are_unknown_and_not_zero(tree: SysfsTree) -> None:
    sensors, folder = card(tree, "a380-xe")
    for path in (tree.path / folder).rglob("*"):
        if path.is_file() and path.parent.name != "power":
            path.write_text("garbage\n")
    reading = sensors.read()
    assert reading == GpuReading(unknown=reading.unknown)
    assert set(reading.unknown) == {"power_w", "temperature_c", "frequency_mhz", "throttle"}
