"""What the files of a Hugging Face model directory say, worked out from a llama model's GGUF."""

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.worker.gguf_file import Floats, GgufFile

_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL_TOKEN = 3


def config(gguf: GgufFile) -> dict[str, Any]:
    """Written for old and new readers alike: transformers 4 and 5 read different names."""
    meta = gguf.metadata
    hidden, heads = meta["llama.embedding_length"], meta["llama.attention.head_count"]
    theta = float(meta["llama.rope.freq_base"])
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": meta["tokenizer.ggml.bos_token_id"],
        "eos_token_id": meta["tokenizer.ggml.eos_token_id"],
        "pad_token_id": meta["tokenizer.ggml.padding_token_id"],
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",  # transformers 4 knows only this name
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": meta["llama.feed_forward_length"],
        "max_position_embeddings": meta["llama.context_length"],
        "mlp_bias": False,
        "num_attention_heads": heads,
        "num_hidden_layers": meta["llama.block_count"],
        "num_key_value_heads": meta["llama.attention.head_count_kv"],
        "pretraining_tp": 1,
        # GGUF holds the float32 nearest to the written 1e-05.
        "rms_norm_eps": float(f"{meta['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_parameters": {"rope_theta": theta, "rope_type": "default"},
        "rope_theta": theta,  # transformers 4 silently takes 10000 without it
        "tie_word_embeddings": "output.weight" not in gguf.tensors,
        "use_cache": True,
        "vocab_size": meta["llama.vocab_size"],
    }


def generation_config(gguf: GgufFile) -> dict[str, Any]:
    meta = gguf.metadata
    return {
        "_from_model_config": True,
        "bos_token_id": meta["tokenizer.ggml.bos_token_id"],
        "eos_token_id": meta["tokenizer.ggml.eos_token_id"],
        "pad_token_id": meta["tokenizer.ggml.padding_token_id"],
    }


def tokenizer(gguf: GgufFile) -> dict[str, Any]:
    """A byte-level BPE tokenizer that splits digits one by one, as SmolLM's does."""
    byte_level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": token, **_PLAIN_TOKEN} for index, token in _specials(gguf)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", **byte_level},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", **byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {
                token: index for index, token in enumerate(gguf.metadata["tokenizer.ggml.tokens"])
            },
            # As strings: tokenizers before 0.20 cannot read pairs.
            "merges": gguf.metadata["tokenizer.ggml.merges"],
        },
    }


_PLAIN_TOKEN = {
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": True,
}


def tokenizer_config(gguf: GgufFile) -> dict[str, Any]:
    meta = gguf.metadata
    tokens = meta["tokenizer.ggml.tokens"]
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(index): {"content": token, **_PLAIN_TOKEN} for index, token in _specials(gguf)
        },
        "bos_token": tokens[meta["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[meta["tokenizer.ggml.eos_token_id"]],
        "unk_token": tokens[meta["tokenizer.ggml.unknown_token_id"]],
        "pad_token": tokens[meta["tokenizer.ggml.padding_token_id"]],
        "chat_template": meta["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        # Without it some transformers 4 tokenizers add token_type_ids, which generate() refuses.
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": meta["llama.context_length"],
        # A class that every transformers since 4.0 has.
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def special_tokens_map(gguf: GgufFile) -> dict[str, str]:
    settings = tokenizer_config(gguf)
    return {name: settings[name] for name in ("bos_token", "eos_token", "unk_token", "pad_token")}


def _specials(gguf: GgufFile) -> Iterator[tuple[int, str]]:
    kinds = gguf.metadata["tokenizer.ggml.token_type"]
    for index, token in enumerate(gguf.metadata["tokenizer.ggml.tokens"]):
        if kinds[index] == _CONTROL_TOKEN:
            yield index, token


def weights(gguf: GgufFile) -> Iterator[tuple[str, Floats]]:
    """Each tensor under its Hugging Face name."""
    meta = gguf.metadata
    heads, kv_heads = meta["llama.attention.head_count"], meta["llama.attention.head_count_kv"]
    for name in sorted(gguf.tensors):
        values = gguf.floats(name)
        if name == "token_embd.weight":
            yield "model.embed_tokens.weight", values
        elif name == "output_norm.weight":
            yield "model.norm.weight", values
        elif name == "output.weight":
            yield "lm_head.weight", values
        elif match := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name):
            layer, part = match.groups()
            if part == "attn_q":
                values = _unpermuted(values, heads)
            elif part == "attn_k":
                values = _unpermuted(values, kv_heads)
            yield f"model.layers.{layer}.{_LAYER_NAMES[part]}.weight", values


def _unpermuted(values: Floats, heads: int) -> Floats:
    """Rotary pairs lie side by side in GGUF, half a head apart in Hugging Face's layout."""
    rows, columns = values.shape
    return (
        values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(values.shape)
    )


def bfloat16(values: Floats) -> npt.NDArray[np.uint16]:
    """Rounded to nearest, ties to even; numpy has no bfloat16 of its own."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    carry = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return ((bits + carry) >> np.uint32(16)).astype(np.uint16)


def safetensors(gguf: GgufFile) -> Iterator[bytes]:
    """The pieces of a .safetensors file that holds all weights as bfloat16."""
    parts = {name: bfloat16(values) for name, values in weights(gguf)}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, part in parts.items():
        header[name] = {
            "dtype": "BF16",
            "shape": list(part.shape),
            "data_offsets": [at, at + part.nbytes],
        }
        at += part.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for part in parts.values():
        yield part.tobytes()
