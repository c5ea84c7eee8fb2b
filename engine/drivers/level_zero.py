"""How Intel's Level Zero counts GPUs, for the mask that shows an engine only its own."""

from collections.abc import Iterable, Sequence

from engine.core.topology import Gpu
from engine.drivers.driver import Order

INTEL = "8086"
_KERNEL_DRIVERS = ("i915", "xe")

Generation = str
DG2, FLEX, MAX, BATTLEMAGE = "Arc A-series", "Flex", "Max", "Arc B-series"
_GENERATIONS = {
    **dict.fromkeys(("569", "56a", "56b", "4f8"), DG2),
    "56c": FLEX,
    **dict.fromkeys(("0b69", "0b6e", "0bd"), MAX),
    **dict.fromkeys(("e20", "e21", "e22"), BATTLEMAGE),
}
"""First digits of a PCI device id and the cards that begin with them."""
_TWO_TILES = ("0b69", "0bd5", "0bd6", "0bd7", "0bd8")
"""Max 1350, 1450 and 1550: by default each of their two tiles is a device of its own."""


def generation(gpu: Gpu) -> Generation | None:
    """The family of a card; None where it is not Intel's, or not known."""
    if gpu.vendor != INTEL or gpu.device is None:
        return None
    device = gpu.device
    return next((name for start, name in _GENERATIONS.items() if device.startswith(start)), None)


def generations(order: Order) -> frozenset[Generation]:
    """The families of the placement's cards."""
    return frozenset(name for gpu in order.cards if (name := generation(gpu)) is not None)


def is_seen(gpu: Gpu) -> bool:
    """Whether Level Zero counts a GPU: Intel's, with a kernel driver, and ours to open."""
    return gpu.vendor == INTEL and gpu.driver in _KERNEL_DRIVERS and gpu.may_open is not False


def has_two_tiles(gpu: Gpu) -> bool:
    """Whether the card counts as two devices (ZE_FLAT_DEVICE_HIERARCHY is FLAT by default)."""
    return gpu.vendor == INTEL and (gpu.device or "") in _TWO_TILES


def affinity_mask(machine_gpus: Sequence[Gpu], indexes: Iterable[int]) -> str | None:
    """ZE_AFFINITY_MASK for GPUs by our index; None where Level Zero does not see one of them.

    Its default order is ours: cards before GPUs inside processors, each by PCI address
    (compute-runtime, shared/source/execution_environment/execution_environment.cpp). But it skips
    what it cannot open, so the numbers behind such a GPU shift. With
    ZE_ENABLE_PCI_ID_DEVICE_ORDER=1 the one inside the processor would come first.
    """
    seen = [gpu.index for gpu in machine_gpus if is_seen(gpu)]
    wanted = list(indexes)
    if not set(wanted) <= set(seen):
        return None
    return ",".join(str(seen.index(index)) for index in wanted)
