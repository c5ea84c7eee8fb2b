"""Matrix products that widen their weights block by block, so that a block stays in the cache."""

import torch
from torch import nn
from torch.nn import functional

_BLOCK_VALUES = 256 * 1024
"""1 MiB as float32: about half of a core's second-level cache."""


def has_fast_bfloat16() -> bool:
    """Without AVX-512 torch multiplies bfloat16 matrices ten times slower than float32 ones."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def block_linear(
    rows: torch.Tensor, weight: torch.Tensor, block_values: int = _BLOCK_VALUES
) -> torch.Tensor:
    """`rows @ weight.T` in float32, where the weights have a narrower type."""
    wide = rows.float()
    step = max(16, block_values // weight.shape[1])
    if step >= weight.shape[0]:
        return functional.linear(wide, weight.float())
    made = torch.empty(rows.shape[0], weight.shape[0])
    for begin in range(0, weight.shape[0], step):
        made[:, begin : begin + step] = functional.linear(
            wide, weight[begin : begin + step].float()
        )
    return made


class Bfloat16Linear(nn.Module):
    """A bfloat16 layer that takes, of torch's ways to multiply, the quick one for this CPU."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._is_fast = has_fast_bfloat16()
        self.weight, self.bias = linear.weight, linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if self._is_fast and states.numel() == self.in_features and self.bias is None:
            # A quarter quicker than oneDNN, which packs the weights anew each time.
            made = torch.mv(self.weight, states.reshape(-1))
            return made.view(*states.shape[:-1], self.out_features)
        if self._is_fast or states.numel() == self.in_features:
            return functional.linear(states, self.weight, self.bias)
        made = block_linear(states.reshape(-1, self.in_features), self.weight)
        if self.bias is not None:
            made += self.bias
        return made.to(states.dtype).view(*states.shape[:-1], self.out_features)


def quicken_bfloat16(model: nn.Module) -> None:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, Bfloat16Linear(child))
