"""Matrix products that widen their weights block by block, so that a block stays in the cache."""

import torch
from torch import nn
from torch.nn import functional

_BLOCK_VALUES = 256 * 1024
"""1 MiB as float32: about half of a core's second-level cache."""


def has_fast_bfloat16() -> bool:
    """Without AVX-512 torch multiplies bfloat16 matrices ten times slower than float32 ones."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def block_linear(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`rows @ weight.T`, where the weights have a narrower type than the product is made in."""
    compute = torch.float32
    if rows.dtype == torch.bfloat16 and weight.dtype != torch.bfloat16 and has_fast_bfloat16():
        compute = torch.bfloat16
    wide = rows.to(compute)
    step = max(16, _BLOCK_VALUES // weight.shape[1])
    if step >= weight.shape[0]:
        return functional.linear(wide, weight.to(compute)).to(rows.dtype)
    made = torch.empty(rows.shape[0], weight.shape[0], dtype=rows.dtype)
    for begin in range(0, weight.shape[0], step):
        block = weight[begin : begin + step].to(compute)
        made[:, begin : begin + step] = functional.linear(wide, block)
    return made


class WideningLinear(nn.Module):
    """A bfloat16 layer for a CPU without fast bfloat16 products: small in memory, yet quick."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if states.numel() == self.in_features:  # one row: limited by memory, so narrow is good
            return functional.linear(states, self.weight, self.bias)
        made = block_linear(states.reshape(-1, self.in_features), self.weight)
        if self.bias is not None:
            made += self.bias
        return made.view(*states.shape[:-1], self.out_features)


def widen_linears(model: nn.Module) -> None:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, WideningLinear(child))
