"""A model of random weights, made from its config.json alone."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import transformers

_SEED = 0
_SPREAD = 0.035
"""Even chances up to it have the deviation, 0.02, with which such models begin their training."""
_BLOCK = (1 << 20) - 3
"""No multiple of a row's length, or rows would be alike."""


def dummy_module(config: Any, **arguments: Any) -> Any:
    """The same weights each time. What transformers would fill slowly is never filled by it."""
    with _without_initialising():
        module = transformers.AutoModelForCausalLM.from_config(config, **arguments)
    module.tie_weights()
    generator = torch.Generator().manual_seed(_SEED)
    block = torch.empty(_BLOCK).uniform_(-_SPREAD, _SPREAD, generator=generator)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() < 2:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)  # 1: a norm
            else:
                _fill(parameter.data.view(-1), block)
    return module.eval()


def _fill(values: torch.Tensor, block: torch.Tensor) -> None:
    for begin in range(0, len(values), len(block)):
        count = min(len(block), len(values) - begin)
        values[begin : begin + count] = block[:count]


@contextlib.contextmanager
def _without_initialising() -> Iterator[None]:
    """Whatever way transformers has of making first weights ends in one of these."""
    methods = {name: getattr(torch.Tensor, name) for name in ("normal_", "uniform_")}
    for name in methods:
        setattr(torch.Tensor, name, lambda tensor, *_args, **_kwargs: tensor)
    try:
        yield
    finally:
        for name, method in methods.items():
            setattr(torch.Tensor, name, method)
