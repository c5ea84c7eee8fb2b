"""Intel's extension for PyTorch: its import, and what of it works with our own cache."""

import sys
from collections.abc import Callable
from typing import Any

import torch

from engine.worker.errors import CannotServe
from engine.worker.kv_cache import RowCache


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
