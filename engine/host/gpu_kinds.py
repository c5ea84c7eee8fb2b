"""Which PCI functions count as GPUs, and in which order they are numbered."""

from engine.host import pci_names
from engine.host.pci import PciDevice

CLASSES = frozenset({0x03, 0x12})
"""PCI base classes: displays, and accelerators."""
_ACCELERATOR = 0x12


def is_gpu(device: PciDevice) -> bool:
    """Displays (class 0x03) and accelerators (0x12), but no server's console."""
    return (
        device.class_code is not None
        and device.class_code >> 16 in CLASSES
        and not pci_names.is_console(device.vendor, device.device)
    )


def is_integrated(device: PciDevice) -> bool:
    """Intel's GPU inside the processor is function 00:02.0, and no card's id."""
    return (
        device.vendor == pci_names.INTEL
        and not pci_names.is_card(device.vendor, device.device)
        and device.address.endswith(":00:02.0")
        and len(device.path) <= 1
    )


def order(device: PciDevice) -> tuple[int, tuple[int, ...]]:
    """Sorts GPUs into the order of their indexes, stable over reboots.

    Intel cards by PCI address, then Intel GPUs inside a processor, then other vendors' GPUs, then
    accelerators. The first two are the order in which Intel's Level Zero driver counts devices
    for ZE_AFFINITY_MASK, as long as no card is hidden from it (no driver, no permission) and no
    card of several tiles is split into them.
    """
    if device.class_code is not None and device.class_code >> 16 == _ACCELERATOR:
        return 3, device.order
    if device.vendor != pci_names.INTEL:
        return 2, device.order
    return int(is_integrated(device)), device.order
