"""Everything of the worker that needs torch, behind one function."""

import sys
from collections.abc import Callable
from typing import Any, NoReturn

import torch

from engine.worker import memory
from engine.worker.errors import RequestRefused
from engine.worker.loaded import Loaded
from engine.worker.metrics import Metrics
from engine.worker.model import Model, load
from engine.worker.options import Options
from engine.worker.requests import Prompts
from engine.worker.scheduler import Deliver, Scheduler

_POOL_SHARE = 0.9
"""Of the memory that is left when the weights are loaded; the rest is for what a step needs."""
_IDLE_TOKENS = 8192


def start(
    options: Options, metrics: Metrics, *, deliver: Deliver, clock: Callable[[], float]
) -> tuple[Loaded, Callable[[], None]]:
    """The loaded model, and the loop that the calling thread has to run."""
    model = loaded_model(options)
    tokens = kv_tokens(options, model, memory.available_bytes())
    scheduler = Scheduler(
        model,
        max_num_seqs=options.max_num_seqs,
        max_waiting=options.max_waiting,
        kv_tokens=tokens,
        # Memory that was given to us is ours; else ended sequences hold no more than a long one.
        idle_tokens=max(_IDLE_TOKENS, model.max_length)
        if options.kv_cache_bytes is None
        else tokens,
        prefix_caching=options.prefix_caching,
        metrics=metrics,
        deliver=deliver,
        clock=clock,
    )
    tokenizer = model.tokenizer
    loaded = Loaded(
        prompts=Prompts(
            encode=_no_tokenizer
            if tokenizer is None
            else lambda text: tokenizer.encode(text, special=True),
            chat=_no_tokenizer if tokenizer is None else tokenizer.chat,
            vocabulary=model.vocabulary,
            max_length=model.max_length,
        ),
        decode=(lambda _: "") if tokenizer is None else tokenizer.decode,
        submit=scheduler.submit,
        abort=scheduler.abort,
        max_length=model.max_length,
        dtype=str(model.dtype).removeprefix("torch."),
        torch_version=torch.__version__,
        weights_bytes=model.weights_bytes,
        token_read_bytes=model.token_read_bytes,
        kv_bytes_per_token=model.kv_bytes_per_token,
        kv_tokens=tokens,
        path=model.path,
        path_reason=model.path_reason,
        products=model.products,
    )
    return loaded, scheduler.run


def loaded_model(options: Options) -> Model:
    """With a word in the log about how it runs."""
    torch.set_num_threads(options.threads)
    model = load(options)
    why = f", because {model.path_reason}" if model.path_reason else ""
    _say(f"the model runs by the {model.path} path{why}")
    if model.products:
        _say(f"{options.weight_only.upper()} weights are multiplied by {model.products}")
    if options.load_format == "dummy":
        _say("the weights are random (--load-format dummy): the answers mean nothing")
    if model.tokenizer is None:
        _say("there is no tokenizer: prompts must be token ids, and answers have no text")
    return model


def kv_tokens(options: Options, model: Model, available: int | None) -> int:
    """How many tokens of keys and values may be held; at least one whole context."""
    each = model.kv_bytes_per_token
    wanted = options.max_num_seqs * model.max_length
    what = f"Cannot hold the keys and values of a context of {model.max_length} tokens"
    smaller = "or choose a slot with more memory"
    if options.kv_cache_bytes is not None:
        tokens = options.kv_cache_bytes // each
        memory.require(
            options.kv_cache_bytes,
            available,
            what="Cannot hold keys and values in --kv-cache-memory-bytes",
            do=f"Give fewer bytes, {smaller}",
        )
        memory.require(
            model.max_length * each,
            options.kv_cache_bytes,
            what=what,
            do=f"Give --max-model-len {tokens} or less, or more bytes",
        )
        return min(wanted, tokens)
    if available is None:
        return wanted
    tokens = int(available * _POOL_SHARE) // each
    memory.require(
        model.max_length * each,
        int(available * _POOL_SHARE),
        what=what,
        do=f"Give --max-model-len {tokens} or less, {smaller}",
    )
    return min(wanted, tokens)


def _no_tokenizer(_: Any) -> NoReturn:
    raise RequestRefused(
        "This model has no tokenizer (it was started with random weights from its config.json "
        "alone): send the prompt as a list of token ids to /v1/completions.",
        param="prompt",
        code="no_tokenizer",
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
