"""Matrix products with weights in a floating type, by the quick way of this CPU for each type.

A product is a module that TorchScript can compile: [rows, in] to [rows, out], where rows come as
float32 or as the weights' type and leave as either. Each says its `nbytes`, and of these the
`token_bytes` that one decode step reads.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from engine.worker.block_linear import block_linear, has_fast_bfloat16

MakeProduct = Callable[[torch.Tensor, torch.Tensor | None], nn.Module]


class PlainProduct(nn.Module):
    """Weights as they are, such as a head that shares the embedding's."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        self.nbytes = self.token_bytes = int(weight.nbytes)
        is_bfloat16 = weight.dtype == torch.bfloat16
        self.takes_vectors = is_bfloat16 and has_fast_bfloat16() and bias is None
        self.takes_blocks = is_bfloat16 and not has_fast_bfloat16()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        rows = rows.to(self.weight.dtype)
        if self.takes_vectors and rows.shape[0] == 1:
            # A quarter quicker than oneDNN, which packs the weights anew each time.
            return torch.mv(self.weight, rows[0]).unsqueeze(0)
        if self.takes_blocks and rows.shape[0] > 1:
            made = block_linear(rows, self.weight)
            return made if self.bias is None else made.add_(self.bias)
        return functional.linear(rows, self.weight, self.bias)


class PackedProduct(nn.Module):
    """Weights in oneDNN's own order: few rows together take hardly longer than one."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.nbytes = self.token_bytes = int(weight.nbytes)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
        self.bias = None if bias is None else bias.detach()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        rows = rows.to(torch.bfloat16).contiguous()
        made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self.packed, self.bias, "none", [], ""
        )
        return made


def quick_product(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    """Packed, where oneDNN multiplies this type and this torch lets us pack."""
    if weight.dtype == torch.bfloat16:
        try:
            packed = PackedProduct(weight, bias)
            packed(torch.zeros(1, weight.shape[1]))
        except (AttributeError, RuntimeError, NotImplementedError):
            pass  # such as bfloat16 without AVX-512
        else:
            return packed
    return PlainProduct(weight, bias)
