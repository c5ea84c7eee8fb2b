"""What would fit where a model does not: a shorter context, another form, more devices."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Unpack

from engine.core.model.shape import ModelShape
from engine.core.model.tensors import StoredWeights
from engine.core.sizing import GIB, Asking, Device, Needs, size

CONTEXT_STEP = 256
"""Contexts are offered in multiples of it, and none below it."""
_DEVICES = {"gpu": "GPUs", "cpu": "NUMA nodes"}


@dataclass(frozen=True, slots=True)
class Fit:
    """One change that makes a model fit, and what it then needs."""

    key: str
    """context, weight_only, dtype or tensor_parallel."""
    value: int | str
    needs: Needs

    def words(self, device: Device) -> str:
        bytes_each = self.needs.per_device_bytes
        each = "–" if bytes_each is None else f"{bytes_each / GIB:.1f} GiB"
        if self.needs.tensor_parallel > 1:
            each += " each"
        match self.key:
            case "tensor_parallel":
                return f"{self.value} {_DEVICES[device]} ({each})"
            case "context":
                return f"context {self.value:,} ({each})"
            case _:
                return f'{self.key} = "{self.value}" ({each})'


def fits(
    shape: ModelShape,
    stored: StoredWeights | int | None = None,
    *,
    available_bytes: int,
    devices: int = 1,
    forms: Sequence[str] = (),
    dtypes: Sequence[str] = (),
    **asking: Unpack[Asking],
) -> tuple[Fit, ...]:
    """Single changes to what is asked after which each of its devices has enough.

    `available_bytes` is for each device (or memory node), `devices` how many there are in all,
    `forms` and `dtypes` what the engine has for `weight_only` and `dtype`. Empty when it fits as
    it is, when its size is not known, and when no single change helps.
    """

    def sized(asking: Asking) -> Needs:
        return size(shape, stored, **asking)

    def enough(needs: Needs) -> bool:
        return needs.per_device_bytes is not None and needs.per_device_bytes <= available_bytes

    def changes(now: Needs) -> Iterator[Fit]:
        # The multiples below what was asked for, which itself does not fit; more never needs less.
        low, high = 0, ((now.context or 1) - 1) // CONTEXT_STEP
        while low < high:
            middle = (low + high + 1) // 2
            if enough(sized(asking | {"context": middle * CONTEXT_STEP})):
                low = middle
            else:
                high = middle - 1
        if low:
            longest = low * CONTEXT_STEP
            yield Fit("context", longest, sized(asking | {"context": longest}))
        for form in forms:
            if form != asking.get("weight_only", "none"):
                yield Fit("weight_only", form, sized(asking | {"weight_only": form}))
        for dtype in dtypes:
            if dtype != asking.get("dtype", "auto"):
                yield Fit("dtype", dtype, sized(asking | {"dtype": dtype}))
        for ranks in now.splits or ():
            if now.tensor_parallel < ranks <= devices:
                yield Fit("tensor_parallel", ranks, sized(asking | {"tensor_parallel": ranks}))

    now = sized(asking)
    if now.per_device_bytes is None or enough(now):
        return ()
    return tuple(fit for fit in changes(now) if enough(fit.needs))


def would_fit(
    shape: ModelShape,
    stored: StoredWeights | int | None = None,
    *,
    available_bytes: int,
    devices: int = 1,
    forms: Sequence[str] = (),
    dtypes: Sequence[str] = (),
    **asking: Unpack[Asking],
) -> tuple[str, ...]:
    """`fits` in words with numbers."""
    found = fits(
        *(shape, stored),
        available_bytes=available_bytes,
        devices=devices,
        forms=forms,
        dtypes=dtypes,
        **asking,
    )
    return tuple(fit.words(asking.get("device", "cpu")) for fit in found)
