"""Puts low-bit products in place of the linear layers and experts of a transformers model."""

from typing import Any

import torch
from torch import nn

from engine.worker.linear import MakeProduct


class PackedLinear(nn.Module):
    """A product that looks like a layer."""

    def __init__(self, linear: nn.Linear, make: MakeProduct) -> None:
        super().__init__()
        self.product = make(linear.weight, linear.bias)
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        made = self.product(states.reshape(-1, self.in_features)).to(states.dtype)
        return made.view(*states.shape[:-1], self.out_features)


class PackedExperts(nn.Module):
    """Experts whose weights transformers keeps stacked in one tensor for all of them."""

    def __init__(self, experts: Any, make: MakeProduct) -> None:
        super().__init__()
        first = "gate_up_proj" if experts.has_gate else "up_proj"
        self.up, self.down = (
            nn.ModuleList(_unstacked(experts, name, make)) for name in (first, "down_proj")
        )
        for name in (first, "down_proj"):
            setattr(experts, name, None)
        self.activation = experts._apply_gate if experts.has_gate else experts.act_fn

    def forward(
        self, states: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """`chosen` and `weights`: of each token its experts and what each counts."""
        made = torch.zeros_like(states, dtype=torch.float32)
        for expert in chosen.unique().tolist():
            if expert >= len(self.up):
                continue  # how transformers says "none"
            tokens, places = torch.where(chosen == expert)
            inner = self.activation(self.up[expert](states[tokens]).to(states.dtype))
            out = self.down[expert](inner).float()
            made.index_add_(0, tokens, out * weights[tokens, places, None].float())
        return made.to(states.dtype)


def pack(model: nn.Module, make: MakeProduct) -> int:
    """Replaces every linear layer and all experts; says how many. A tied head gets bytes of its
    own, and the embedding, whose rows are only looked up, stays as it is."""
    count = 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            kind = PackedLinear if type(child) is nn.Linear else PackedExperts
            if kind is PackedLinear or _are_stacked_experts(child):
                setattr(module, name, kind(child, make))
                count += 1
    return count


def packed_bytes(model: nn.Module) -> int:
    """Of all products, which are no parameters."""
    return sum(
        one.product.nbytes
        if isinstance(one, PackedLinear)
        else sum(expert.nbytes for expert in (*one.up, *one.down))
        for one in model.modules()
        if isinstance(one, PackedLinear | PackedExperts)
    )


def _are_stacked_experts(module: Any) -> bool:
    """As transformers 5 marks them; what has a norm behind each expert stays as it is."""
    return hasattr(module, "is_transposed") and not getattr(module, "has_post_expert_norm", False)


def _unstacked(experts: Any, name: str, make: MakeProduct) -> list[nn.Module]:
    stacked = getattr(experts, name).detach()
    biases = getattr(experts, f"{name}_bias") if experts.has_bias else None
    return [
        make(
            one.T.contiguous() if experts.is_transposed else one,
            None if biases is None else biases[index],
        )
        for index, one in enumerate(stacked)
    ]
