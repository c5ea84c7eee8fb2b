"""What PCI ids stand for: Intel's GPUs by name and memory, and displays that compute nothing."""

from dataclasses import dataclass

INTEL = "8086"
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Model:
    """A card that is sold under one PCI device id."""

    name: str
    memory_gib: tuple[int, ...] = ()
    """Every size that it is sold with; empty where we are not sure."""


# The public pci.ids lists often know only the chip ("Battlemage G21"), or nothing at all.
INTEL_GPUS = {
    "56a0": Model("Arc A770", (8, 16)),
    "56a1": Model("Arc A750", (8,)),
    "56a2": Model("Arc A580", (8,)),
    "56a5": Model("Arc A380", (6,)),
    "56a6": Model("Arc A310", (4,)),
    "56b1": Model("Arc Pro A40/A50", (6,)),
    "56b3": Model("Arc Pro A60", (12,)),
    "56c0": Model("Data Center GPU Flex 170", (16,)),
    "56c1": Model("Data Center GPU Flex 140", (6,)),
    "56c2": Model("Data Center GPU Flex 170V"),
    "e209": Model("Arc B580", (12,)),
    "e20b": Model("Arc B580", (12,)),
    "e20c": Model("Arc B570", (10,)),
    "e211": Model("Arc Pro B60", (24,)),
    "e212": Model("Arc Pro B50", (16,)),
    "e222": Model("Arc Pro B65"),
    "e223": Model("Arc Pro B70", (32,)),
    "0b69": Model("Data Center GPU Max 1450", (128,)),
    "0b6e": Model("Data Center GPU Max 1100C"),
    "0bd4": Model("Data Center GPU Max 1550VG"),
    "0bd5": Model("Data Center GPU Max 1550", (128,)),
    "0bd6": Model("Data Center GPU Max 1550", (128,)),
    "0bd7": Model("Data Center GPU Max 1350", (96,)),
    "0bd8": Model("Data Center GPU Max 1350", (96,)),
    "0bd9": Model("Data Center GPU Max 1100", (48,)),
    "0bda": Model("Data Center GPU Max 1100", (48,)),
    "0bdb": Model("Data Center GPU Max 1100", (48,)),
}

# DG1, DG2 (Arc A, Flex), Ponte Vecchio (Max) and Battlemage (Arc B) come only as cards.
_CARDS = ("490", "4f8", "569", "56a", "56b", "56c", "0b69", "0b6e", "0bd", "e20", "e21", "e22")

# A board's management controller shows the console; QEMU's and VMware's displays do the same.
_CONSOLE_VENDORS = frozenset({"1a03", "102b", "1013", "1234", "15ad", "18ca", "126f", "1b36"})
_CONSOLE_DEVICES = frozenset({("19e5", "1711")})


def model(vendor: str | None, device: str | None) -> Model | None:
    """The card behind four hexadecimal digits each, or None for one that is not listed."""
    return INTEL_GPUS.get(device or "") if vendor == INTEL else None


def is_card(vendor: str | None, device: str | None) -> bool:
    """True for an Intel GPU that exists only as a card, never inside a processor."""
    return vendor == INTEL and (device or "").startswith(_CARDS)


def is_console(vendor: str | None, device: str | None) -> bool:
    """True for a display that only shows a server's console: it is no place for a model."""
    return vendor in _CONSOLE_VENDORS or (vendor, device) in _CONSOLE_DEVICES


def memory_bytes(known: Model, bar_bytes: int, bar_sizes: tuple[int, ...] | None) -> int | None:
    """The card's memory by its model, None where it is sold with several sizes that fit.

    A card can be given a BAR of up to its memory rounded up to a power of two, so the BAR's size
    rules smaller siblings out, and the sizes that it supports (`bar_sizes`) tell them apart.
    """
    rounded = {size * GIB: 1 << (size * GIB - 1).bit_length() for size in known.memory_gib}
    fitting = [size for size, most in rounded.items() if most >= bar_bytes]
    if len(fitting) > 1 and bar_sizes:
        fitting = [size for size in fitting if rounded[size] == max(bar_sizes)]
    return fitting[0] if len(fitting) == 1 else None
