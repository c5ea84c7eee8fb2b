"""Linear layers with weight-only INT8: a signed byte a weight, one scale an output channel."""

import torch
from torch import nn

from engine.worker.block_linear import block_linear

_MOST_PACKED_ROWS = 12
"""Above it the byte kernel, which takes row after row, loses to widening the weights once."""
_KERNEL_WIDTH = 32
"""The byte kernel reads past the end of a row that is no multiple of this."""


class Int8Linear(nn.Module):
    """Activations are rounded to bfloat16: torch's only vectorised kernel for bytes times floats
    on the CPU takes them so, with and without AVX-512."""

    weight: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        scale = (weight.float().abs().amax(dim=1) / 127).clamp(min=1e-12).bfloat16()
        packed = torch.empty(weight.shape, dtype=torch.int8)
        for begin in range(0, weight.shape[0], 4096):  # the head's float32 copy would be the peak
            block = slice(begin, begin + 4096)
            levels = weight[block].float() / scale[block].float().unsqueeze(1)
            packed[block] = levels.round_().clamp_(-127, 127)
        self.register_buffer("weight", packed)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())
        self._is_packable = self.in_features % _KERNEL_WIDTH == 0

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        rows = states.reshape(-1, self.in_features)
        if rows.shape[0] <= _MOST_PACKED_ROWS and self._is_packable:
            made = torch._weight_int8pack_mm(
                rows.to(torch.bfloat16).contiguous(), self.weight, self.scale
            ).to(states.dtype)
        else:
            made = block_linear(rows, self.weight).mul_(self.scale.to(states.dtype))
        if self.bias is not None:
            made += self.bias
        return made.view(*states.shape[:-1], self.out_features)


def quantise(model: nn.Module) -> int:
    """Replaces every linear layer; says how many. A tied head gets bytes of its own, and the
    embedding, whose rows are only looked up, stays as it is."""
    count = 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, Int8Linear(child))
                count += 1
    return count
