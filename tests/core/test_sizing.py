"""How much memory a model needs, checked against models whose numbers are public."""

import pytest

from engine.core.sizing import Needs, size

SMOLLM2: dict[str, object] = {
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "hidden_size": 576,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
SMOLLM2_PARAMETERS = 134_515_008
EMBEDDING = 49152 * 576

LLAMA_3_1_8B: dict[str, object] = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


def smollm2(dtype: str = "auto", weight_only: str = "none", **more: int) -> Needs:
    stored = SMOLLM2_PARAMETERS * 2
    return size(SMOLLM2, stored, dtype=dtype, weight_only=weight_only, **more)


def test_smollm2_as_stored() -> None:
    needs = smollm2()
    assert needs.weights_bytes == SMOLLM2_PARAMETERS * 2
    assert needs.kv_bytes == 30 * 2 * 3 * 64 * 2 * 8192 == 180 << 20
    assert needs.total_bytes == SMOLLM2_PARAMETERS * 2 + (180 << 20)


def test_smollm2_in_other_forms() -> None:
    assert smollm2("float32").weights_bytes == SMOLLM2_PARAMETERS * 4
    assert smollm2("float32").kv_bytes == 360 << 20
    # The embedding stays in bfloat16, and the tied head gets an INT8 copy of its own.
    int8 = SMOLLM2_PARAMETERS - EMBEDDING + 2 * EMBEDDING + EMBEDDING
    assert smollm2(weight_only="int8").weights_bytes == int8
    assert smollm2(weight_only="int4").weights_bytes is None
    assert smollm2(weight_only="int4").total_bytes is None
    assert smollm2(context=1024, sequences=4).kv_bytes == 90 << 20


def test_llama_keeps_128_kib_a_token() -> None:
    needs = size(LLAMA_3_1_8B, None, dtype="float16", weight_only="none", context=1)
    assert needs == Needs(None, 128 << 10, None)
    full = size(LLAMA_3_1_8B, 16_060_522_496, dtype="auto", weight_only="none")
    assert full.kv_bytes == 16 << 30
    assert full.weights_bytes == 16_060_522_496


@pytest.mark.parametrize(
    "more",
    [
        {"kv_lora_rank": 512},
        {"sliding_window": 4096},
        {"sliding_window": 4096, "use_sliding_window": True},
        {"layer_types": ["full_attention", "sliding_attention"]},
        {"layer_types": ["linear_attention"]},
        {"num_hidden_layers": None},
        {"num_attention_heads": "32"},
        {"num_attention_heads": 0},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": True},
    ],
)
def test_an_attention_that_we_do_not_know_has_no_size(more: dict[str, object]) -> None:
    needs = size({**LLAMA_3_1_8B, **more}, 1000, dtype="auto", weight_only="none")
    assert needs.kv_bytes is None
    assert needs.total_bytes is None
    assert needs.weights_bytes == 1000


@pytest.mark.parametrize(
    "more",
    [
        {"sliding_window": 131072, "use_sliding_window": False},
        {"sliding_window": None, "layer_types": ["full_attention"] * 32},
        {"head_dim": 128},
        {"head_dim": None, "kv_lora_rank": None},
    ],
)
def test_plain_attention_in_other_words(more: dict[str, object]) -> None:
    needs = size({**LLAMA_3_1_8B, **more}, None, dtype="auto", weight_only="none", context=1)
    assert needs.kv_bytes == 128 << 10


def test_what_is_not_told_is_not_guessed() -> None:
    assert size(None, 1000, dtype="auto", weight_only="none") == Needs()
    assert size({}, 1000, dtype="float32", weight_only="none") == Needs()
    odd = {**LLAMA_3_1_8B, "torch_dtype": "float8_e4m3fn"}
    assert size(odd, 1000, dtype="auto", weight_only="none") == Needs()
    packed = {**LLAMA_3_1_8B, "quantization_config": {"quant_method": "awq", "bits": 4}}
    needs = size(packed, 1000, dtype="auto", weight_only="none", context=1)
    assert needs == Needs(None, 128 << 10, None)
    new = {**LLAMA_3_1_8B, "torch_dtype": None, "dtype": "bfloat16"}
    assert size(new, 1000, dtype="auto", weight_only="none").weights_bytes == 1000
