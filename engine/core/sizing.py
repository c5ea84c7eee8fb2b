"""How much memory a model needs: weights and KV cache, from its own config.json."""

from collections.abc import Mapping
from dataclasses import dataclass

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes; None is "not known". The KV cache is counted full: every sequence at full length."""

    weights_bytes: int | None = None
    kv_bytes: int | None = None
    total_bytes: int | None = None


def size(
    config: Mapping[str, object] | None,
    stored_bytes: int | None,
    *,
    dtype: str,
    weight_only: str,
    context: int | None = None,
    sequences: int = 1,
) -> Needs:
    """Weights = parameters x bytes of the dtype; KV = layers x 2 x kv_heads x head_dim x bytes.

    Parameters are the stored bytes over the stored dtype's size. With INT8 weights the embedding
    stays in `dtype` and the output head gets its own INT8 copy where the two are tied. Only plain
    attention (with grouped heads) is known; anything else gives None.
    """
    if config is None:
        return Needs()
    stored = str(config.get("dtype") or config.get("torch_dtype") or "")
    used = stored if dtype == "auto" else dtype
    if used not in BYTES or stored not in BYTES:
        return Needs()
    weights = None
    # Packed weights have fewer bytes than parameters: their size tells nothing.
    if stored_bytes is not None and not config.get("quantization_config"):
        parameters = stored_bytes // BYTES[stored]
        weights = parameters * BYTES[used]
        if weight_only == "int8":
            embedding = _number(config, "vocab_size") * _number(config, "hidden_size")
            linear = parameters - embedding
            tied = bool(config.get("tie_word_embeddings"))
            weights = linear + embedding * BYTES[used] + (embedding if tied else 0)
        elif weight_only != "none":
            weights = None
    kv = _kv_bytes_per_token(config, BYTES[used])
    length = context or _number(config, "max_position_embeddings")
    kv_bytes = kv * length * sequences if kv and length else None
    total = weights + kv_bytes if weights is not None and kv_bytes is not None else None
    return Needs(weights, kv_bytes, total)


def _kv_bytes_per_token(config: Mapping[str, object], element_bytes: int) -> int | None:
    if not _plain_attention(config):
        return None
    layers, heads = _number(config, "num_hidden_layers"), _number(config, "num_attention_heads")
    if not layers or not heads:
        return None
    kv_heads = _number(config, "num_key_value_heads") or heads
    head_dim = _number(config, "head_dim") or _number(config, "hidden_size") // heads
    return layers * 2 * kv_heads * head_dim * element_bytes or None


def _plain_attention(config: Mapping[str, object]) -> bool:
    """Whether every layer keeps keys and values of all tokens."""
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and any(kind != "full_attention" for kind in kinds):
        return False
    # Some configs carry a window that they do not use.
    windowed = config.get("sliding_window") and config.get("use_sliding_window") is not False
    return not windowed and not config.get("kv_lora_rank")


def _number(config: Mapping[str, object], key: str) -> int:
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
