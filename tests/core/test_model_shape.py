"""What config.json files tell, checked against published models and against transformers."""

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.model import layers as kinds
from engine.core.model.shape import ModelShape, read_shape
from engine.core.model.tensors import Tensor, weigh
from tests.core import model_configs as models
from tests.core.model_configs import Config


def kinds_of(config: Config) -> dict[str, int]:
    shape = read_shape(config)
    assert shape.layers is not None
    return dict(Counter(layer.kind for layer in shape.layers))


def whys(shape: ModelShape) -> str:
    return "; ".join(f"{one.what}: {one.why}" for one in shape.missing)


@pytest.mark.parametrize("name", models.PUBLISHED)
def test_parameters_are_the_published_ones(name: str) -> None:
    config, published = models.PUBLISHED[name]
    parameters = read_shape(config).parameters
    assert parameters is not None
    assert parameters.total == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize(
    ("config", "billions"),
    [
        (models.MIXTRAL_8X7B, 12.9),
        (models.QWEN3_30B_A3B, 3.35),
        (models.DEEPSEEK_V3, 37.5),
        (models.JAMBA_V01, 12.1),
        (models.LLAMA_31_8B, 8.03),
    ],
)
def test_active_parameters(config: Config, billions: float) -> None:
    parameters = read_shape(config).parameters
    assert parameters is not None
    assert parameters.active / 1e9 == pytest.approx(billions, rel=0.01)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (models.LLAMA_31_8B, {kinds.FULL: 32}),
        (models.QWEN25_14B, {kinds.FULL: 48}),
        (models.QWEN25_14B | {"use_sliding_window": True}, {kinds.FULL: 48}),
        (
            models.QWEN25_14B | {"use_sliding_window": True, "max_window_layers": 40},
            {kinds.FULL: 40, kinds.WINDOW: 8},
        ),
        (models.MISTRAL_7B, {kinds.WINDOW: 32}),
        (models.MISTRAL_7B | {"sliding_window": None}, {kinds.FULL: 32}),
        (models.GEMMA_2_9B, {kinds.FULL: 21, kinds.WINDOW: 21}),
        (models.GEMMA_3_27B, {kinds.FULL: 10, kinds.WINDOW: 52}),
        (models.GPT_OSS_20B, {kinds.FULL: 12, kinds.WINDOW: 12}),
        (models.DEEPSEEK_V3, {kinds.LATENT: 61}),
        (models.JAMBA_V01, {kinds.FULL: 4, kinds.MAMBA: 28}),
        (models.GRANITE_40_H_SMALL, {kinds.FULL: 4, kinds.MAMBA: 36}),
        (models.QWEN3_NEXT_80B, {kinds.FULL: 12, kinds.LINEAR: 36}),
        (
            models.LLAMA_31_8B | {"model_type": "cohere2", "sliding_window": 4096},
            {kinds.FULL: 8, kinds.WINDOW: 24},
        ),
        (
            models.LLAMA_31_8B
            | {"model_type": "exaone4", "sliding_window": 4096}
            | {"sliding_window_pattern": "LLLG"},
            {kinds.FULL: 8, kinds.WINDOW: 24},
        ),
        (
            models.LLAMA_31_8B | {"model_type": "llama4_text", "attention_chunk_size": 8192},
            {kinds.FULL: 8, kinds.CHUNK: 24},
        ),
        (
            models.LLAMA_31_8B
            | {"model_type": "gemma3n_text", "sliding_window": 512, "num_kv_shared_layers": 12},
            {kinds.FULL: 4, kinds.WINDOW: 16, kinds.SHARED: 12},
        ),
        (
            models.LLAMA_31_8B
            | {"model_type": "lfm2", "full_attn_idxs": [2, 5], "conv_L_cache": 3},
            {kinds.FULL: 2, kinds.CONV: 30},
        ),
        (
            models.LLAMA_31_8B
            | {"model_type": "nemotron_h", "hybrid_override_pattern": "M-M*E", "conv_kernel": 4}
            | {"ssm_state_size": 128, "mamba_num_heads": 128, "mamba_head_dim": 64, "n_groups": 8},
            {kinds.MAMBA: 2, kinds.FULL: 1, kinds.NOTHING: 2},
        ),
    ],
)
def test_the_kind_of_every_layer(config: Config, expected: dict[str, int]) -> None:
    assert kinds_of(config) == expected


def test_states_of_recurrent_layers() -> None:
    def state(config: Config, kind: str) -> int | None:
        layers = read_shape(config).layers
        assert layers is not None
        return next(layer.state_values for layer in layers if layer.kind == kind)

    assert state(models.JAMBA_V01, kinds.MAMBA) == 8192 * (4 + 16)
    assert state(models.GRANITE_40_H_SMALL, kinds.MAMBA) == (8192 + 2 * 128) * 4 + 8192 * 128
    assert state(models.QWEN3_NEXT_80B, kinds.LINEAR) == 8192 * 4 + 32 * 128 * 128


def test_lawful_splits() -> None:
    # 9 divides its heads, but not a feed-forward width of 1536.
    assert read_shape(models.SMOLLM2_135M).splits == (1, 3)
    assert read_shape(models.SMOLLM2_135M | {"intermediate_size": 1152}).splits == (1, 3, 9)
    assert read_shape(models.LLAMA_31_8B).splits == (1, 2, 4, 8, 16, 32)
    # Of 40 heads with 8 key heads 5, 10 and 20 do not divide the key heads.
    assert read_shape(models.QWEN25_14B).splits == (1, 2, 4, 8)
    assert read_shape({}).splits is None
    # As many heads as nobody has are not gone through one by one.
    many = read_shape({**models.LLAMA_31_8B, "num_attention_heads": 2**31, "head_dim": 1})
    assert many.splits == (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def test_the_language_part_of_a_model_that_sees() -> None:
    shape = read_shape(models.GEMMA_3_27B)
    assert (shape.hidden, shape.heads, shape.dtype) == (5376, 32, "bfloat16")
    assert shape.tied
    assert "only the language part is counted" in whys(shape)
    for part in ("text_config", "llm_config", "language_config"):
        inside = {"model_type": "some_vl", part: models.LLAMA_31_8B}
        assert read_shape(inside).layers == read_shape(models.LLAMA_31_8B).layers
    deep = {"thinker_config": {"text_config": models.LLAMA_31_8B}, "dtype": "float16"}
    assert read_shape(deep).dtype == "bfloat16"
    assert read_shape({"text_config": {"hidden_size": 8}, "dtype": "float16"}).dtype == "float16"


@pytest.mark.parametrize(
    ("told", "words", "per_parameter"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq, 4 bits", 0.52),
        ({"quant_method": "awq", "w_bit": 4, "group_size": 64}, "awq, 4 bits", 0.54),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8, 8 bits", 1.0),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "int"}}},
            },
            "compressed-tensors, 8 bits",
            1.0,
        ),
        ({"quant_method": "mxfp4"}, "mxfp4, 4 bits", 0.53),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes, 4 bits", 0.52),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "modelopt, 4 bits", 0.52),
        ({"quant_method": "quark"}, "quark", None),
        ({"quant_method": 3, "bits": "4"}, "a form that is not named", None),
    ],
)
def test_the_stored_form(told: Config, words: str, per_parameter: float | None) -> None:
    form = read_shape({"quantization_config": told}).stored_form
    assert form is not None
    assert str(form) == words
    found = form.form.bytes_per_parameter if form.form else None
    assert found == (None if per_parameter is None else pytest.approx(per_parameter, abs=0.01))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers is not a number"),
        ({"num_hidden_layers": 10**18}, "num_hidden_layers is not a number"),
        ({"num_hidden_layers": 10**6}, "1,000,000 of them are not believable"),
        ({"num_key_value_heads": "8"}, "the number or size of its key heads is not told"),
        ({"num_attention_heads": 0}, "the number or size of its key heads is not told"),
        ({"head_dim": -1}, "the number or size of its key heads is not told"),
        ({"sliding_window": "4096"}, "sliding_window or max_window_layers is not a number"),
        ({"layer_types": ["full_attention"]}, "layer_types does not name every layer"),
        ({"layer_types": ["magic"] * 32}, "a layer of a kind we do not know"),
        ({"layer_types": ["sliding_attention"] * 32}, "sliding_window is not a number above zero"),
        ({"layer_types": ["linear_attention"] * 32}, "the size of its recurrent state"),
        ({"kv_lora_rank": "512"}, "kv_lora_rank or qk_rope_head_dim is not a number"),
        ({"kv_lora_rank": 512, "index_head_dim": 128}, "keys of an indexer"),
        ({"model_type": "rwkv7"}, "rwkv7 keeps a recurrence of its own"),
        ({"attn_layer_period": []}, "attn_layer_period or its offset is not a number"),
        ({"sliding_window_pattern": 0, "sliding_window": 1}, "sliding_window_pattern is not"),
        ({"model_type": "wholly_new"}, "the architecture is 'wholly_new': not one we know"),
        ({"model_type": None}, "the architecture is not named: not one we know"),
        ({"intermediate_size": None}, "a layer of full attention is not fully told"),
        ({"vocab_size": "many"}, "vocab_size is not a number above zero"),
        ({"num_experts": 8}, "the experts' number, width or layers are not told"),
        ({"num_experts": 8, "num_experts_per_tok": 2, "moe_layers": "all"}, "the experts' number"),
    ],
)
def test_what_is_odd_is_unknown_with_a_reason(more: Config, reason: str) -> None:
    shape = read_shape(models.LLAMA_31_8B | more)
    assert reason in whys(shape)
    assert shape.parameters is None or shape.vocabulary is not None


def test_no_config_at_all() -> None:
    assert "there is no config.json here" in whys(read_shape(None))
    assert read_shape({}).layers is None


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_reading_never_raises(data: st.DataObject) -> None:
    whole = copy.deepcopy(data.draw(st.sampled_from(list(models.PUBLISHED.values())))[0])
    config: dict[str, Any] = whole
    if "text_config" in whole and data.draw(st.booleans()):
        config = whole["text_config"]
    extra = (
        *("kv_lora_rank", "num_kv_shared_layers", "hybrid_override_pattern", "v_head_dim"),
        *("attn_layer_indices", "mlp_layer_types", "moe_layers", "quantization_config"),
        "text_config",
    )
    for key in data.draw(st.lists(st.sampled_from([*config, *extra]), min_size=1, max_size=4)):
        config[key] = data.draw(
            anything | st.integers(-2, 2**40) | st.sampled_from(["MM*-", "LG"])
        )
    shape = read_shape(whole)
    assert shape.splits is None or shape.splits[:1] in ((1,), ())
    if shape.layers is None:
        assert shape.missing
    elif any(layer.token_values is None for layer in shape.layers):
        assert any(one.what == "the cache" for one in shape.missing)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=10), anything, max_size=5))
def test_reading_never_raises_on_anything(config: Mapping[str, object]) -> None:
    assert read_shape(config).missing


SMALL: Config = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "max_position_embeddings": 256,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0),
}
EXPERTS: Config = {"num_experts": 8, "num_local_experts": 8, "num_experts_per_tok": 2}
NARROW: Config = {**EXPERTS, "moe_intermediate_size": 48}
LATENT: Config = {
    "kv_lora_rank": 32,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 20,
}
ROUTED: Config = {
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
DELTA: Config = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
MAMBA2: Config = {
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_d_state": 16,
    "mamba_expand": 2,
}
ONE_FULL = ["mamba", "attention", "mamba", "mamba"]
NEMOTRON: Config = {
    "hybrid_override_pattern": "M-E*-M",
    "num_hidden_layers": 6,
    "mamba_num_heads": 8,
    "mamba_head_dim": 16,
    "n_groups": 2,
    "ssm_state_size": 16,
    "n_routed_experts": 4,
    "moe_intermediate_size": 48,
    "moe_shared_expert_intermediate_size": 40,
}


@pytest.mark.torch
@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("llama", {}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
        *(
            (family, {})
            for family in ("mistral", "ministral", "qwen2", "qwen3", "gemma", "gemma2")
        ),
        ("qwen3", {"attention_bias": True}),
        *((family, {}) for family in ("gemma3_text", "phi3", "granite", "smollm3", "ernie4_5")),
        *((family, {}) for family in ("seed_oss", "cohere", "cohere2", "olmo2", "olmo3", "glm4")),
        ("cohere", {"use_qk_norm": True}),
        ("mixtral", EXPERTS),
        ("granitemoe", EXPERTS),
        ("gpt_oss", EXPERTS),
        ("qwen3_moe", NARROW),
        ("qwen2_moe", {**NARROW, "shared_expert_intermediate_size": 56}),
        ("llama4_text", {**EXPERTS, "intermediate_size_mlp": 200, "interleave_moe_layer_step": 2}),
        ("deepseek_v2", LATENT | ROUTED | {"q_lora_rank": None}),
        ("deepseek_v3", LATENT | ROUTED),
        ("minicpm3", LATENT),
        ("glm4_moe", ROUTED | {"use_qk_norm": True, "attention_bias": True}),
        ("qwen3_next", {**NARROW, **DELTA, "shared_expert_intermediate_size": 56}),
        ("qwen3_5_text", DELTA),
        ("jamba", {"num_hidden_layers": 8, "num_experts": 4, "head_dim": 16}),
        ("bamba", {**MAMBA2, "attn_layer_indices": [1, 3]}),
        ("granitemoehybrid", {**MAMBA2, "layer_types": ONE_FULL, "num_local_experts": 0}),
        ("granitemoehybrid", {**MAMBA2, "layer_types": ONE_FULL, "num_local_experts": 4}),
        ("falcon_h1", {**MAMBA2, "mamba_d_ssm": 128}),
        ("lfm2", {"layer_types": ["conv", "full_attention", "conv", "conv"]}),
        ("nemotron_h", NEMOTRON),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_parameters_are_those_of_the_models_own_class(family: str, more: Config) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(family, **{**SMALL, **more})
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    shape = read_shape(config.to_dict())
    assert shape.parameters is not None, whys(shape)
    assert shape.parameters.total == sum(one.numel() for one in model.parameters())
    # Part by part: by the config on one side, by the tensors' names on the other.
    tensors = [Tensor(name, "F32", tuple(one.shape)) for name, one in model.named_parameters()]
    by_name = weigh(tensors, size_bytes=None, complete=True).parameters
    assert by_name == replace(shape.parameters, active_share=1.0)
