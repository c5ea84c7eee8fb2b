"""Matrix products with weights in a floating type, by the quick way of this CPU for each type."""

from typing import Any, Protocol

import torch
from torch.nn import functional

from engine.worker.block_linear import block_linear, has_fast_bfloat16


class Linear(Protocol):
    """[rows, in] to [rows, out]; rows come and leave as float32 or as the weights' type."""

    nbytes: int
    token_bytes: int
    """What one decode step reads of it."""

    def product(self, rows: torch.Tensor) -> torch.Tensor: ...


class PlainLinear:
    """Weights as they are, such as a head that shares the embedding's."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._weight, self._bias = weight.detach(), None if bias is None else bias.detach()
        self.nbytes = self.token_bytes = weight.nbytes
        self._fast_bfloat16 = weight.dtype == torch.bfloat16 and has_fast_bfloat16()
        self._slow_bfloat16 = weight.dtype == torch.bfloat16 and not self._fast_bfloat16

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        rows = rows.to(self._weight.dtype)
        if self._fast_bfloat16 and rows.shape[0] == 1 and self._bias is None:
            # A quarter quicker than oneDNN, which packs the weights anew each time.
            return torch.mv(self._weight, rows[0]).unsqueeze(0)
        if self._slow_bfloat16 and rows.shape[0] > 1:
            made = block_linear(rows, self._weight)
            return made if self._bias is None else made.add_(self._bias)
        return functional.linear(rows, self._weight, self._bias)


class PackedLinear:
    """Weights in oneDNN's own order: few rows together take hardly longer than one."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._dtype = weight.dtype
        self.nbytes = self.token_bytes = weight.nbytes
        self._packed: Any = torch.ops.mkldnn._reorder_linear_weight(
            weight.detach().contiguous(), None
        )
        self._bias = None if bias is None else bias.detach()
        self._product = torch.ops.mkldnn._linear_pointwise.default

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self._product(
            rows.to(self._dtype).contiguous(), self._packed, self._bias, "none", [], ""
        )
        return made


def quick_linear(weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
    """Packed, where oneDNN multiplies this type and this torch lets us pack."""
    if weight.dtype == torch.bfloat16:
        try:
            packed = PackedLinear(weight, bias)
            packed.product(torch.zeros(1, weight.shape[1]))
        except (AttributeError, RuntimeError, NotImplementedError):
            pass  # such as bfloat16 without AVX-512
        else:
            return packed
    return PlainLinear(weight, bias)
