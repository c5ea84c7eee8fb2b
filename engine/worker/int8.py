"""Linear layers with weight-only INT8: a signed byte a weight, one scale an output channel.

Torch on the CPU has two kernels that read such weights as bytes. `bytes` (`_weight_int8pack_mm`)
takes activations in bfloat16 and reads the weights at less than half of the memory's speed.
`parts` (FBGEMM's quantised product) reads them at full speed but wants activations in bytes,
which would no longer be weight-only; so each row goes through it as two rows of seven bits, the
coarse part and the rest of it, and their sum is as exact as 13 bits beside the row's largest
value. Seven bits, because without VNNI the kernel's 16-bit sums overflow with more.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from engine.worker.block_linear import block_linear, has_fast_bfloat16

LEVELS = 63
"""Of one part, to either side of its zero."""
_REST = 2 * LEVELS
"""The rest is at most half a level; so many times larger it fills the levels again."""
_MOST_BYTES_ROWS = 12
"""Above it the byte kernel, which takes row after row, loses to widening the weights once."""
_KERNEL_WIDTH = 32
"""The byte kernel reads past the end of a row that is no multiple of this."""
_CACHED_ADVANTAGE = 1.7
"""By so much `bytes` must win in the caches to win out of them: 0.8 there is 1.6 here."""
_KEPT_ROOM_ROWS = 64
_NEVER = 1 << 62
_TRIED_ROWS = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Means:
    """How INT8 layers are multiplied on this CPU; found by measuring, once a load."""

    name: str
    """`parts` or `bytes`."""
    widen_from: dict[torch.dtype, int]
    """Rows from which on widening all weights to this type is quicker; absent: never."""
    second_copy: bool = False
    """Whether the unpacked bytes are kept too, without which `parts` cannot widen."""
    rooms: "dict[tuple[int, int], _Room]" = field(default_factory=dict, repr=False, compare=False)
    """Shared by all layers: one is multiplied at a time."""

    def __str__(self) -> str:
        widened = ", ".join(
            f"widened to {str(dtype).removeprefix('torch.')} from {rows} rows"
            for dtype, rows in self.widen_from.items()
            if self.second_copy
        )
        return f"{self.name}{f', {widened}' if widened else ''}"


class _Parts:
    """Weights as FBGEMM packs them."""

    def __init__(self, levels: torch.Tensor, scale: torch.Tensor) -> None:
        with warnings.catch_warnings():  # torch announces the end of these tensors
            warnings.simplefilter("ignore")
            quantised = torch._make_per_channel_quantized_tensor(
                levels, scale.double(), torch.zeros(len(scale), dtype=torch.long), 0
            )
            self._packed: Any = torch.ops.quantized.linear_prepack(quantised, None)
        self._product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default

    def product(self, rows: torch.Tensor, room: "_Room") -> torch.Tensor:
        # Each operation costs some 2 us while the caches are full of weights, so there are few.
        largest = rows.abs().amax(1, True)  # noqa: FBT003
        scale = torch.add(room.tiny, largest, alpha=1 / LEVELS)
        torch.div(rows, scale, out=room.rest)
        torch.round(room.rest, out=room.coarse)
        room.rest.sub_(room.coarse).mul_(room.fill)
        both = self._product(room.both, 1.0, LEVELS + 1, self._packed)
        if len(rows) == 1:
            return torch.mm(scale * room.weights, both)
        coarse, rest = both.chunk(2)
        return torch.add(coarse, rest, alpha=1 / _REST).mul_(scale)


class _Room:
    """Where the two parts of so many rows are put; made once for each shape."""

    tiny = torch.full((1, 1), 1e-30)
    fill = torch.tensor(float(_REST))
    """As a tensor: a number would be made one in each call."""
    weights = torch.tensor([[1.0, 1 / _REST]])

    def __init__(self, count: int, width: int) -> None:
        self.both = torch.empty(2 * count, width)
        self.coarse, self.rest = self.both[:count], self.both[count:]


class Int8Linear(nn.Module):
    """A linear layer in any of the ways; the sums are in float32 with `parts`."""

    scale: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, means: Means) -> None:
        super().__init__()
        weight = weight.detach()
        self.out_features, self.in_features = weight.shape
        scale = (weight.float().abs().amax(dim=1) / 127).clamp(min=1e-12)
        if means.name == "bytes":
            scale = scale.bfloat16()  # as its kernel wants them
        levels = torch.empty(weight.shape, dtype=torch.int8)
        for begin in range(0, weight.shape[0], 4096):  # the head's float32 copy would be the peak
            block = slice(begin, begin + 4096)
            wide = weight[block].float() / scale[block].float().unsqueeze(1)
            levels[block] = wide.round_().clamp_(-127, 127)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if bias is None else bias.detach().float())
        self._parts = _Parts(levels, scale) if means.name == "parts" else None
        self._means = means
        # What the model was to be computed in is exact enough for many rows too.
        self._wide = torch.bfloat16 if weight.dtype == torch.bfloat16 else torch.float32
        self._widen_from = means.widen_from if means.second_copy else {}
        keeps = self._parts is None or bool(self._widen_from)
        self._levels = levels if keeps else None
        self.token_bytes = levels.nbytes
        self.nbytes = levels.nbytes * (2 if keeps and self._parts is not None else 1)
        self._fits_kernel = self.in_features % _KERNEL_WIDTH == 0

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        rows = states.reshape(-1, self.in_features)
        made = self.product(rows).to(states.dtype)
        return made.view(*states.shape[:-1], self.out_features)

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        """[rows, in] to [rows, out], in whatever type comes out."""
        if self._parts is None:
            made = self._from_bytes(rows)
        elif rows.shape[0] < self._widen_from.get(self._wide, _NEVER):
            made = self._parts.product(rows.float(), self._room(rows.shape[0]))
        else:
            made = self.widened(rows.to(self._wide))
        return made if self.bias is None else made.add_(self.bias)

    def _room(self, count: int) -> _Room:
        if count > _KEPT_ROOM_ROWS:
            return _Room(count, self.in_features)
        room = self._means.rooms.get((count, self.in_features))
        if room is None:
            room = self._means.rooms[count, self.in_features] = _Room(count, self.in_features)
        return room

    def _from_bytes(self, rows: torch.Tensor) -> torch.Tensor:
        assert self._levels is not None
        if rows.shape[0] <= _MOST_BYTES_ROWS and self._fits_kernel:
            return torch._weight_int8pack_mm(
                rows.to(torch.bfloat16).contiguous(), self._levels, self.scale
            ).float()
        return block_linear(rows, self._levels).float().mul_(self.scale.float())

    def widened(self, rows: torch.Tensor) -> torch.Tensor:
        """By weights of the rows' own type, made anew, which pays for many rows."""
        assert self._levels is not None
        return functional.linear(rows, self._levels.to(rows.dtype)).float().mul_(self.scale)


def quantise(model: nn.Module, means: Means) -> int:
    """Replaces every linear layer; says how many. A tied head gets bytes of its own, and the
    embedding, whose rows are only looked up, stays as it is."""
    count = 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, Int8Linear(child.weight, child.bias, means))
                count += 1
    return count


def measured_means(*, second_copy: bool, clock: Callable[[], float] = time.thread_time) -> Means:
    """Tries the kernels on made-up layers; takes a fraction of a second.

    Those layers stay in the caches, where `bytes` looks better than with a whole model's weights.
    """
    torch.manual_seed(0)
    weights = [torch.randn(2048, 1024) for _ in range(4)]
    as_bytes = [Int8Linear(weight, None, Means("bytes", {})) for weight in weights]
    try:
        both = Means("parts", {torch.float32: _NEVER}, second_copy=True)
        as_parts = [Int8Linear(weight, None, both) for weight in weights]
        for layer, other in zip(as_parts, as_bytes, strict=True):
            probe = torch.randn(3, 1024)
            if not torch.allclose(layer.product(probe), other.product(probe), rtol=0.1, atol=1):
                return Means("bytes", {})
    except (AttributeError, RuntimeError, NotImplementedError):
        return Means("bytes", {})  # a torch without FBGEMM

    def took(work: Callable[[], object], tries: int) -> float:
        """The least of several: a neighbour or a first call makes it longer, nothing shorter."""
        best = float("inf")
        for _ in range(tries):
            begun = clock()
            work()
            best = min(best, clock() - begun)
        return best

    row = torch.randn(1, 1024)
    by_bytes, by_parts = (
        took(lambda: [layer.product(row) for layer in layers], 5)  # noqa: B023 -- used at once
        for layers in (as_bytes, as_parts)
    )
    if by_parts > _CACHED_ADVANTAGE * by_bytes:
        return Means("bytes", {})
    return Means("parts", _widening(as_parts[0], took), second_copy)


def _widening(
    layer: Int8Linear, took: Callable[[Callable[[], object], int], float]
) -> dict[torch.dtype, int]:
    found: dict[torch.dtype, int] = {}
    for dtype in (torch.float32, torch.bfloat16):
        if dtype == torch.bfloat16 and not has_fast_bfloat16():
            continue
        for count in _TRIED_ROWS:
            rows = torch.randn(count, layer.in_features).to(dtype)
            if took(lambda: layer.widened(rows), 2) < 0.9 * took(lambda: layer.product(rows), 2):  # noqa: B023
                found[dtype] = count
                break
    return found
