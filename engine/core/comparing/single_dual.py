"""One card or two? From one GPU instance the three arms that answer it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from engine.core.errors import UsageError
from engine.core.layout import Instance
from engine.core.slot import Slot
from engine.core.topology import Gpu, Machine

ONE: Final = "one card"
TWO: Final = "two cards"
REPLICAS: Final = "two replicas"
PAIRS: Final = ((ONE, TWO), (ONE, REPLICAS), (REPLICAS, TWO))
"""What is compared, in this order. The last asks how two cards are used best."""
_PARALLEL: Final = ("tensor-parallel-size", "tensor_parallel_size", "tp")


@dataclass(frozen=True, slots=True)
class SingleDual:
    """The arms by name, and on which two cards they are."""

    cards: tuple[int, int]
    arms: dict[str, tuple[Instance, ...]]
    reason: str
    """Why these two."""


def single_dual(wish: Instance, machine: Machine) -> SingleDual:
    """Raises UsageError where the instance or the machine does not have what it takes."""
    if fixed := [name for name in _PARALLEL if name in wish.args]:
        raise _refused(
            wish,
            f"its args fix {fixed[0]}, which is what would be compared",
            "Leave it out: a slot of two cards asks for tensor parallel by itself",
        )
    first, second, reason = _two_cards(wish, machine.gpus)
    both = f"gpu:{','.join(str(card) for card in sorted((first, second)))}"

    def on(name: str, slot: str) -> Instance:
        return msgspec.structs.replace(
            wish, name=name, slot=slot, gpus=None, count=None, cores=None, port=None
        )

    arms = {
        ONE: (on(f"{wish.name}-one", f"gpu:{first}"),),
        TWO: (on(f"{wish.name}-two", both),),
        REPLICAS: (
            on(f"{wish.name}-left", f"gpu:{first}"),
            on(f"{wish.name}-right", f"gpu:{second}"),
        ),
    }
    return SingleDual((first, second), arms, reason)


def _two_cards(wish: Instance, gpus: Sequence[Gpu]) -> tuple[int, int, str]:
    """What the slot names; what it leaves open is the nearest card of the same kind."""
    slot = Slot.parse(wish.slot)
    if slot.kind not in ("gpu", "auto") and slot.each != "gpu":
        raise _refused(wish, f"its slot {wish.slot} is no GPU", "Name an instance on a GPU")
    known = {one.index: one for one in gpus}
    cards = [one for one in gpus if not one.integrated]
    named = sorted(slot.indexes.pus)
    if missing := [str(index) for index in named if index not in known]:
        raise _refused(wish, f"there is no GPU {missing[0]} here", "Correct its slot")
    if len(named) >= 2:
        return named[0], named[1], f"the first two of {slot}"
    if len(cards) < 2:
        raise _refused(
            wish,
            f"this machine has {len(cards)} cards" if len(cards) != 1 else "there is one card",
            "Compare on a machine with two",
        )
    if named:
        pairs = [(known[named[0]], other) for other in cards if other.index != named[0]]
    else:
        pairs = [(one, other) for one in cards for other in cards if one.index < other.index]
    like = [pair for pair in pairs if _kind(pair[0]) == _kind(pair[1])]
    if not like:
        raise _refused(
            wish,
            "no two of its cards are of one kind, and unlike ones are no fair pair",
            "Name two of them in its slot, as gpu:0,1, to compare them all the same",
        )
    first, second = min(like, key=lambda pair: (_is_far(*pair), pair[0].index, pair[1].index))
    where = "on other NUMA nodes" if _is_far(first, second) else "near each other"
    return first.index, second.index, f"two of one kind, {where}"


def _kind(gpu: Gpu) -> tuple[str | None, str | None, int | None]:
    return gpu.vendor, gpu.device, gpu.memory_bytes


def _is_far(one: Gpu, other: Gpu) -> bool:
    return one.numa_node != other.numa_node


def _refused(wish: Instance, why: str, do: str) -> UsageError:
    return UsageError(what=f"{wish.name} cannot be compared on one card and two", why=why, do=do)
