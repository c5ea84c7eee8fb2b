"""Intel's extension for PyTorch: its import, and what of it works with our own cache."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from engine.worker.errors import CannotServe
from engine.worker.kv_cache import RowCache

_INT4_GROUP = 64


def check_ipex() -> Any:
    """The extension, with `llm.optimize`, or a clear word: nothing else may be loaded before."""
    try:
        import intel_extension_for_pytorch as ipex

        ipex.llm.optimize  # noqa: B018 -- an extension too old has no such name
    except (Exception, SystemExit) as error:  # with a torch that does not fit it ends the program
        raise CannotServe(
            what="Cannot start the ipex engine",
            why=f"intel_extension_for_pytorch does not import in this Python ({error!r})",
            do="Install the ipex extra in an environment of its own, or use --engine torch",
        ) from error
    return ipex


class WoqProduct(nn.Module):
    """The extension's weight-only product: it widens the weights inside, to bfloat16."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, *, form: str) -> None:
        super().__init__()
        from intel_extension_for_pytorch.nn.modules import WeightOnlyQuantizedLinear
        from intel_extension_for_pytorch.quantization import (
            WoqLowpMode,
            WoqWeightDtype,
            get_weight_only_quant_qconfig_mapping,
        )

        rows, width = weight.shape
        # INT4 has a scale for every 64 weights where that divides them, INT8 one for each row.
        group = _INT4_GROUP if form == "int4" and width % _INT4_GROUP == 0 else -1
        asked = get_weight_only_quant_qconfig_mapping(
            weight_dtype=WoqWeightDtype.INT4 if form == "int4" else WoqWeightDtype.INT8,
            lowp_mode=WoqLowpMode.BF16,
            group_size=group,
        )
        linear = nn.Linear(width, rows, bias=bias is not None, device="meta")
        linear.weight = nn.Parameter(weight.detach().float(), requires_grad=False)
        if bias is not None:
            linear.bias = nn.Parameter(bias.detach().float(), requires_grad=False)
        linear.qconfig = asked.global_qconfig
        self._owner = [WeightOnlyQuantizedLinear.from_float(linear)]  # a list: no child of ours
        self.handle = self._owner[0]._op_context.get_data_handle()
        # A bfloat16 model computes its rows in bfloat16, which is quicker for many.
        self.takes_bfloat16 = weight.dtype == torch.bfloat16
        size = rows * width
        self.nbytes = self.token_bytes = size if form == "int8" else size // 2 + size // 16

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if self.takes_bfloat16:
            rows = rows.to(torch.bfloat16)
        made: torch.Tensor = torch.ops.torch_ipex.ipex_woq_linear(rows, self.handle)
        return made


def optimised_by_ipex(module: Any, dtype: torch.dtype, *, reload: Callable[[], Any]) -> Any:
    """The most of the extension that runs here: its language-model kernels bring a cache of their
    own and refuse some CPUs, and each attempt may leave the model half changed."""
    ipex = check_ipex()
    attempts: dict[str, Callable[[Any], Any]] = {
        "ipex.llm.optimize": lambda one: ipex.llm.optimize(
            one, dtype=dtype, inplace=True, deployment_mode=False
        ),
        "ipex.optimize": lambda one: ipex.optimize(one, dtype=dtype, inplace=True),
        "ipex.optimize without packed weights": lambda one: ipex.optimize(
            one, dtype=dtype, inplace=True, weights_prepack=False
        ),
    }
    for name, optimise in attempts.items():
        try:
            made = optimise(module)
            _probe(made)
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- the next attempt may do
            print(f"{name} does not run here: {error!r}", file=sys.stderr)  # noqa: T201
            module = reload()
        else:
            print(f"optimised by {name}", file=sys.stderr)  # noqa: T201
            return made
    raise CannotServe(
        what="Cannot start the ipex engine",
        why="the extension optimises this model in no way that runs here",
        do="Use --engine torch, or another --dtype",
    )


def _probe(module: Any) -> None:
    """A prompt and a step must go through our cache, and leave numbers."""
    cache = RowCache(max_rows=1, max_length=16)
    cache.add_row()
    for begin, count in ((0, 4), (4, 1)):
        cache.aim(0, 1, count)
        made = module(
            input_ids=torch.zeros(1, count, dtype=torch.long),
            position_ids=torch.arange(begin, begin + count).unsqueeze(0),
            past_key_values=cache,
            use_cache=True,
            return_dict=True,
        )
        cache.advance()
        if not bool(torch.isfinite(made.logits).all()):
            raise RuntimeError("the logits are no numbers")
    if len(cache) == 0:
        raise RuntimeError("the keys and values did not go into the cache")
