"""Products with weight-only INT8: a signed byte a weight, one scale an output channel.

Torch on the CPU has kernels that read such weights as bytes at the memory's full speed, but they
want activations in bytes too, which would no longer be weight-only; so each row goes through them
as two rows of bytes, the coarse part and the rest of it, and their sum is as exact as 13 bits
beside the row's largest value. oneDNN's (`onednn`) is quicker for many rows where there is VNNI
or AMX; FBGEMM's (`fbgemm`) is so elsewhere, with parts of seven bits, because without VNNI its
16-bit sums overflow with more. A third kernel, `bytes`, which a torch without both still has,
takes activations in bfloat16 and reads the weights at less than half of the memory's speed.
"""

import time
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import nn

from engine.worker.block_linear import block_linear
from engine.worker.linear import MakeProduct

_MOST_BYTES_ROWS = 12
"""Above it the byte kernel, which takes row after row, loses to widening the weights once."""
_KERNEL_WIDTH = 32
"""The byte kernel reads past the end of a row that is no multiple of this."""
_TRIED_ROWS = (1, 16)
_TRIES = 6
_FARTHEST = 0.02


class OnednnProduct(nn.Module):
    """Two parts of eight bits a row; needs sums of 32 bits, as VNNI and AMX make them."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        levels, self.scale = _levels(weight)
        self.zeros = torch.zeros(len(self.scale), dtype=torch.long)
        self.packed = torch.ops.onednn.qlinear_prepack(levels, None)
        self.bias = None if bias is None else bias.detach().float()
        self.nbytes = self.token_bytes = int(levels.nbytes)
        self.tiny, self.most = torch.full((1, 1), 1e-30), torch.tensor(127.0)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        wide, count = rows.float(), rows.shape[0]
        largest = torch.linalg.vector_norm(wide, float("inf"), [1], True)  # noqa: FBT003
        scale = torch.add(self.tiny, largest, alpha=1 / 127)
        both = torch.empty((2 * count, wide.shape[1]), dtype=torch.int8)
        coarse, rest = both[:count], torch.div(wide, scale)
        coarse.copy_(rest)  # towards zero, so the rest is less than one level
        both[count:].copy_(rest.sub_(coarse).mul_(self.most))
        product = torch.ops.onednn.qlinear_pointwise(
            both, 1.0, 0, self.packed, self.scale, self.zeros, None, 1.0, 0, torch.float32,
            "none", [], "",
        )  # fmt: skip
        made = torch.add(product[:count], product[count:], alpha=1 / 127).mul_(scale)
        return made if self.bias is None else made.add_(self.bias)


class FbgemmProduct(nn.Module):
    """Two parts of seven bits a row."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        levels, scale = _levels(weight)
        with warnings.catch_warnings():  # torch announces the end of these tensors
            warnings.simplefilter("ignore")
            quantised = torch._make_per_channel_quantized_tensor(
                levels, scale.double(), torch.zeros(len(scale), dtype=torch.long), 0
            )
            self.packed = torch.ops.quantized.linear_prepack(quantised, None)
        self.bias = None if bias is None else bias.detach().float()
        self.nbytes = self.token_bytes = int(levels.nbytes)
        self.tiny, self.fill = torch.full((1, 1), 1e-30), torch.tensor(126.0)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        wide, count = rows.float(), rows.shape[0]
        largest = torch.linalg.vector_norm(wide, float("inf"), [1], True)  # noqa: FBT003
        scale = torch.add(self.tiny, largest, alpha=1 / 63)
        both = torch.empty((2 * count, wide.shape[1]))
        coarse, rest = both[:count], both[count:]
        torch.div(wide, scale, out=rest)
        torch.round(rest, out=coarse)
        rest.sub_(coarse).mul_(self.fill)  # at most half a level: it fills the levels again
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            both, 1.0, 64, self.packed
        )
        made = torch.add(product[:count], product[count:], alpha=1 / 126).mul_(scale)
        return made if self.bias is None else made.add_(self.bias)


class BytesProduct(nn.Module):
    """Activations in bfloat16; many rows by weights that are widened block by block."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.levels, self.scale = _levels(weight)
        self.narrow_scale = self.scale.bfloat16()  # as the kernel wants them
        self.bias = None if bias is None else bias.detach().float()
        self.nbytes = self.token_bytes = int(self.levels.nbytes)
        self.most_rows = _MOST_BYTES_ROWS if weight.shape[1] % _KERNEL_WIDTH == 0 else 0

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if rows.shape[0] <= self.most_rows:
            made = torch._weight_int8pack_mm(
                rows.to(torch.bfloat16).contiguous(), self.levels, self.narrow_scale
            ).float()
        else:
            made = block_linear(rows, self.levels).mul_(self.scale)
        return made if self.bias is None else made.add_(self.bias)


PRODUCTS: dict[str, MakeProduct] = {"onednn": OnednnProduct, "fbgemm": FbgemmProduct}
"""The quick ones, which not every torch and CPU has."""


def best_product(
    candidates: Mapping[str, MakeProduct], *, clock: Callable[[], float] = time.thread_time
) -> str | None:
    """The one that is right and quickest on this CPU, None where all are wrong; takes some tenths
    of a second. By time for one row and for several together, each counting the same."""
    torch.manual_seed(0)
    weights = [torch.randn(2048, 1024) for _ in range(4)]
    weights[0][:2] = torch.tensor([[1.0], [-1.0]])  # where narrow sums overflow
    probe = torch.cat((torch.randn(2, 1024), torch.ones(1, 1024)))
    wanted = probe @ weights[0].T
    costs: dict[str, float] = {}
    for name, make in candidates.items():
        try:
            layers = [make(weight, None) for weight in weights]
            got = layers[0](probe)
        except (AttributeError, RuntimeError, NotImplementedError):
            continue  # a torch without it
        if float((got - wanted).norm() / wanted.norm()) > _FARTHEST:
            continue
        costs[name] = 1.0
        for count in _TRIED_ROWS:
            rows = torch.randn(count, 1024)
            # The least of several: a neighbour or a first call makes it longer, nothing shorter.
            taken = []
            for _ in range(_TRIES):
                begun = clock()
                for layer in layers:
                    layer(rows)
                taken.append(clock() - begun)
            costs[name] *= min(taken)
    return min(costs, key=costs.__getitem__) if costs else None


def _levels(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """From -127 to 127, and the scale of each row."""
    weight = weight.detach()
    scale = (weight.float().abs().amax(dim=1) / 127).clamp(min=1e-12)
    levels = torch.empty(weight.shape, dtype=torch.int8)
    for begin in range(0, weight.shape[0], 4096):  # the head's float32 copy would be the peak
        block = slice(begin, begin + 4096)
        wide = weight[block].float() / scale[block].unsqueeze(1)
        levels[block] = wide.round_().clamp_(-127, 127)
    return levels, scale
