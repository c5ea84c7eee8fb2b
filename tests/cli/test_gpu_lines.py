"""What the picture of a machine says of its GPUs."""

from dataclasses import replace

from engine.cli.gpu_lines import gpu_lines, shared_ways
from engine.core.topology import Gpu
from tests.machines_by_hand import gpu

ARC = replace(gpu(0, 0), link_best_gt_s=16.0, link_best_width=16)


def text(*gpus: Gpu) -> str:
    return "\n".join(line.text for line in gpu_lines(gpus))


def test_a_card_without_resizable_bar_and_in_a_poor_slot_is_told() -> None:
    poor = replace(ARC, bar_bytes=256 << 20, bar_address=0xC0000000, link_gt_s=8.0, link_width=4)
    assert "BAR 256.0 MiB, Resizable BAR off, below 4G" in text(poor)
    assert "8 GT/s x4 (could be 16 GT/s x16)" in text(poor)
    assert "could be" not in text(ARC)


def test_another_makers_card_is_not_judged_by_arcs_rules() -> None:
    assert "Resizable" not in text(replace(ARC, vendor="10de"))


def test_a_gpu_inside_the_processor_has_no_link_and_no_memory_of_its_own() -> None:
    inside = text(replace(ARC, integrated=True, memory_bytes=None, link_gt_s=None))
    assert "inside the processor" in inside
    assert "GT/s" not in inside


def test_what_is_odd_is_told() -> None:
    odd = text(replace(ARC, numa_node_derived=True, may_open=False, drm_render="renderD129"))
    assert "NUMA node is derived" in odd
    assert "may not open /dev/dri/renderD129" in odd


def test_cards_below_one_switch_are_named_together() -> None:
    root, switch = "0000:40:01.0", "0000:41:00.0"
    cards = [
        replace(gpu(0, 0), pci_path=(root, switch, "0000:42:00.0", "0000:43:00.0")),
        replace(gpu(1, 0), pci_path=(root, switch, "0000:42:01.0", "0000:46:00.0")),
        replace(gpu(2, 1), pci_path=("0000:80:01.0", "0000:81:00.0")),
        replace(gpu(3, 1), pci_path=()),
    ]
    assert shared_ways(cards) == [f"GPU 0-1 reach each other below PCI bridge {switch}"]
