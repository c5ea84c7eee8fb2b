"""How much memory a model needs, checked against models whose numbers are public."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.model.fit import CONTEXT_STEP, fits, would_fit
from engine.core.model.quantization import FORMS
from engine.core.model.rule import card_rule
from engine.core.model.shape import read_shape
from engine.core.model.tensors import (
    EMBEDDING,
    EXPERT,
    HEAD,
    LINEAR,
    NORM,
    OTHER,
    PACKED,
    ROUTER,
    SCALE,
    StoredWeights,
    Tensor,
    part_of,
    weigh,
)
from engine.core.sizing import GIB, MIB, UTILISATION, Needs, fewest_devices, size
from tests.core import model_configs as models
from tests.core.model_configs import Config

SMOLLM2_PARAMETERS = 134_515_008
EMBEDDINGS = 49152 * 576
NORMS = 61 * 576


def smollm2(**asking: Any) -> Needs:
    return size(models.SMOLLM2_135M, SMOLLM2_PARAMETERS * 2, **asking)


def said(needs: Needs) -> str:
    return "; ".join(needs.notes)


def test_smollm2_as_stored() -> None:
    needs = smollm2()
    assert needs.parameters == SMOLLM2_PARAMETERS
    assert needs.weights_bytes == SMOLLM2_PARAMETERS * 2
    assert needs.kv_bytes == 30 * 2 * 3 * 64 * 2 * 8192 == 180 << 20
    assert needs.runtime_bytes is not None
    assert needs.total_bytes == SMOLLM2_PARAMETERS * 2 + (180 << 20) + needs.runtime_bytes
    assert needs.per_device_bytes == needs.total_bytes
    assert (needs.context, needs.sequences, needs.splits) == (8192, 1, (1, 3))
    assert "134,515,008 parameters (stored as bfloat16) x 2 bytes" in said(needs)
    assert "runtime, an estimate" in said(needs)


def test_smollm2_in_other_forms() -> None:
    assert smollm2(dtype="float32").weights_bytes == SMOLLM2_PARAMETERS * 4
    assert smollm2(dtype="float32").kv_bytes == 360 << 20
    # Embedding and norms stay in bfloat16, and the tied head gets an INT8 copy of its own.
    low = SMOLLM2_PARAMETERS - NORMS
    assert smollm2(weight_only="int8").weights_bytes == low + 2 * (EMBEDDINGS + NORMS)
    int4 = smollm2(weight_only="int4").weights_bytes
    assert int4 == -(-low * 18 // 32) + 2 * (EMBEDDINGS + NORMS)
    # vLLM leaves the head as it is: the embedding itself.
    fp8 = smollm2(weight_only="fp8").weights_bytes
    assert fp8 == low - EMBEDDINGS + 2 * (EMBEDDINGS + NORMS)
    assert smollm2(context=1024, sequences=4).kv_bytes == 90 << 20
    assert smollm2(kv_dtype="fp8").kv_bytes == 90 << 20


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_a_believable_size(form: str) -> None:
    """Between two bits a weight and a byte with its scale, of 8.0B of which 6.98B are linear."""
    weights = size(models.LLAMA_31_8B, weight_only=form).weights_bytes
    assert weights is not None
    assert 3 * GIB < weights < 10 * GIB


@pytest.mark.parametrize(
    ("config", "bytes_per_token"),
    [
        (models.SMOLLM2_135M, 22_500 * 1.024),
        (models.LLAMA_31_8B, 128 << 10),
        (models.QWEN25_14B, 192 << 10),
        (models.QWEN25_32B, 256 << 10),
        (models.MISTRAL_7B, 128 << 10),
        (models.DEEPSEEK_V3, (512 + 64) * 2 * 61),
        (models.DEEPSEEK_V2_LITE, (512 + 64) * 2 * 27),
        (models.MIXTRAL_8X7B, 128 << 10),
        (models.QWEN3_30B_A3B, 96 << 10),
        (models.JAMBA_V01, 4 * 2 * 8 * 128 * 2),
        (models.QWEN3_NEXT_80B, 12 * 2 * 2 * 256 * 2),
    ],
)
def test_cache_of_a_token(config: Config, bytes_per_token: float) -> None:
    needs = size(config, dtype="float16", context=1)
    assert needs.kv_bytes_per_token == bytes_per_token
    if read_shape(config).model_type not in ("jamba", "qwen3_next"):
        assert needs.kv_bytes == bytes_per_token


def kv_of(config: Config, context: int, **asking: Any) -> int:
    needs = size(config, dtype="float16", context=context, **asking)
    assert needs.kv_bytes is not None, said(needs)
    return needs.kv_bytes


def test_windows_stop_growing() -> None:
    assert kv_of(models.MISTRAL_7B, 4096) == kv_of(models.MISTRAL_7B, 32768) == 512 * MIB
    one = 2 * 8 * 256 * 2  # a token in one layer of gemma-2-9b
    assert kv_of(models.GEMMA_2_9B, 8192) == 21 * one * (8192 + 4096)
    one = 2 * 16 * 128 * 2
    assert kv_of(models.GEMMA_3_27B, 131072) == one * (10 * 131072 + 52 * 1024)
    one = 2 * 8 * 64 * 2
    assert kv_of(models.GPT_OSS_20B, 131072) == one * 12 * (131072 + 128)
    assert "slid out of the windows" in said(size(models.MISTRAL_7B))


def test_states_do_not_grow_with_the_context() -> None:
    state = 28 * 8192 * (4 + 16) * 2
    assert kv_of(models.JAMBA_V01, 1000) == 1000 * 16384 + state
    assert kv_of(models.JAMBA_V01, 2000, sequences=3) == 3 * (2000 * 16384 + state)


def test_what_ranks_hold() -> None:
    one, four = (size(models.LLAMA_31_8B, tensor_parallel=ranks) for ranks in (1, 4))
    assert one.weights_bytes == four.weights_bytes
    assert one.kv_bytes == four.kv_bytes
    assert four.per_device_bytes is not None
    assert four.total_bytes == four.per_device_bytes * 4
    # Of 8 key heads each of 16 ranks keeps one: twice the cache. Latents are kept by every rank.
    assert kv_of(models.LLAMA_31_8B, 100, tensor_parallel=16) == 2 * kv_of(models.LLAMA_31_8B, 100)
    assert kv_of(models.DEEPSEEK_V3, 100, tensor_parallel=8) == 8 * kv_of(models.DEEPSEEK_V3, 100)
    assert "3 ranks do not divide 32 attention heads" in said(
        size(models.LLAMA_31_8B, tensor_parallel=3)
    )


def test_mixtures_keep_all_experts_and_use_few() -> None:
    needs = size(models.QWEN3_30B_A3B)
    assert needs.parameters == 30_532_122_624
    assert needs.active_parameters is not None
    assert round(needs.active_parameters / 1e9, 1) == 3.4
    # Which of these are experts is not told.
    strange = size(models.QWEN3_30B_A3B, 70_000_000_000)
    assert (strange.parameters, strange.active_parameters) == (35_000_000_000, None)


def test_a_model_that_also_sees_is_not_counted_whole() -> None:
    assert "the parts that see or hear are not in it" in said(size(models.GEMMA_3_27B))
    assert "see or hear" not in said(size(models.GEMMA_3_27B, 54_864_813_280))


@pytest.mark.parametrize(
    ("config", "gib"),
    [
        (models.GPT_OSS_20B, 12.8),  # as its model card says
        (models.DEEPSEEK_V3, 627),
        (models.LLAMA_31_8B | {"quantization_config": {"quant_method": "awq", "bits": 4}}, 5.3),
    ],
)
def test_packed_weights_by_the_config_alone(config: Config, gib: float) -> None:
    weights = size(config).weights_bytes
    assert weights is not None
    assert weights / GIB == pytest.approx(gib, rel=0.01)


def test_packed_weights_are_taken_as_they_are_stored() -> None:
    packed = models.LLAMA_31_8B | {"quantization_config": {"quant_method": "awq", "bits": 4}}
    assert size(packed, 5_700_000_000).weights_bytes == 5_700_000_000
    assert size(packed, 5_700_000_000, weight_only="awq").weights_bytes == 5_700_000_000
    again = size(packed, 5_700_000_000, weight_only="int8")
    assert again.weights_bytes is None
    assert "awq, 4 bits already" in said(again)
    gguf = StoredWeights(size_bytes=4_900_000_000, packed=True)
    assert size(models.LLAMA_31_8B, gguf).weights_bytes == 4_900_000_000
    assert size(models.LLAMA_31_8B, gguf).parameters == 8_030_261_248


def test_what_is_not_told_is_not_guessed() -> None:
    assert size(None, 1000).weights_bytes is None
    assert "no config.json" in said(size(None, 1000))
    empty = size({}, 1000, dtype="float32")
    assert (empty.weights_bytes, empty.kv_bytes, empty.total_bytes) == (None, None, None)
    odd = size(models.LLAMA_31_8B | {"torch_dtype": "float8_e4m3fn"}, 1000)
    assert (odd.weights_bytes, odd.kv_bytes, odd.runtime_bytes) == (None, None, None)
    assert "dtype is not told" in said(odd)
    new = models.LLAMA_31_8B | {"torch_dtype": None, "dtype": "bfloat16"}
    assert size(new, 1000).weights_bytes == 1000
    assert "'int7' is not known" in said(size(new, weight_only="int7"))
    unknown = size(models.LLAMA_31_8B | {"kv_lora_rank": "?"}, 16_060_522_496)
    assert (unknown.weights_bytes, unknown.total_bytes) == (16_060_522_496, None)
    assert "KV cache unknown: the cache: kv_lora_rank or" in said(unknown)
    nameless = {key: value for key, value in models.LLAMA_31_8B.items() if key != "model_type"}
    assert size(nameless).weights_bytes is None
    assert size(nameless, 16_060_522_496).parameters == 8_030_261_248
    assert size(nameless, context=-1).context == 131072
    assert "longest context is 131,072" in said(size(nameless, context=200_000))


def test_a_made_up_config_cannot_need_more_than_there_is() -> None:
    huge = {key: 2**31 if value == 4096 else value for key, value in models.LLAMA_31_8B.items()}
    huge |= {"head_dim": 2**31, "num_key_value_heads": 2**31}
    assert size(huge).kv_bytes is None
    assert size(huge).total_bytes is None


TABLE = {
    # Cards of 16 GB for float16, fp8, int4; cards of 24 GB for fp8, int4.
    "8.0B": (models.LLAMA_31_8B, (2, 1, 1), (1, 1)),
    "14.8B": (models.QWEN25_14B, (4, 2, 1), (1, 1)),
    "33B": (models.QWEN25_32B, (8, 4, 2), (2, 1)),
}
USEFUL_CONTEXT = 8192
"""With one sequence: 1.5 GiB of cache for 14.8B, which two cards of 16 GB have no room for
beside float16 weights. At 4,096 they just have; every other cell is the same then."""


@pytest.mark.parametrize("name", TABLE)
def test_how_many_cards_it_takes(name: str) -> None:
    config, *expected = TABLE[name]
    found = []
    for gib, forms in ((16, ("none", "fp8", "int4")), (24, ("fp8", "int4"))):
        row = []
        for form in forms:
            tried = [
                size(
                    config,
                    dtype="float16",
                    weight_only=form,
                    context=USEFUL_CONTEXT,
                    tensor_parallel=ranks,
                    device="gpu",
                )
                for ranks in (1, 2, 4, 8)
            ]
            row.append(fewest_devices(tried, int(gib * GIB * UTILISATION)))
        found.append(tuple(row))
    assert found == expected


@pytest.mark.parametrize(
    ("config", "form", "rule"),
    [
        (models.LLAMA_31_8B, "fp8", "8.0B parameters 1 16 GB card; the sum agrees (fp8 weights)"),
        (models.QWEN25_14B, "fp8", "14.8B parameters 2 16 GB cards; the sum agrees (fp8 weights)"),
        (models.QWEN25_32B, "fp8", "32.8B parameters 4 16 GB cards; the sum agrees (fp8 weights)"),
        (models.QWEN25_14B, "none", "the sum says 4 cards (float16): these weights are larger"),
        (models.QWEN25_32B, "int4", "the sum says 2 cards (int4 weights): these weights are sm"),
        (models.SMOLLM2_135M, "none", "does not speak of 0.1B parameters; the sum says 1 card"),
        (models.DEEPSEEK_V3, "none", "671.0B parameters; the sum says 64 cards (fp8, 8 bits weig"),
    ],
)
def test_the_public_rule_beside_the_sum(config: Config, form: str, rule: str) -> None:
    needs = size(
        config,
        dtype="float16",
        weight_only=form,
        context=USEFUL_CONTEXT,
        device="gpu",
        card_bytes=16 * GIB,
    )
    assert needs.rule is not None
    assert rule in needs.rule


def test_where_the_rule_is_silent() -> None:
    assert card_rule(None, 16 * GIB, "fp8") is None
    needs = size(models.QWEN25_14B, context=4096, device="gpu", card_bytes=24 * GIB)
    assert needs.rule == (
        "the rule of thumb is for 16 GB cards, not 24 GiB; the sum says 2 cards (bfloat16)"
    )
    odd = models.QWEN25_14B | {"num_key_value_heads": "8"}
    unknown = size(odd, 29_540_067_328, device="gpu", card_bytes=16 * GIB)
    assert unknown.rule is not None
    assert unknown.rule.endswith("the sum is not known")
    assert size(models.QWEN25_14B, card_bytes=16 * GIB).rule is None
    long = size(models.QWEN25_14B, sequences=1000, device="gpu", card_bytes=16 * GIB)
    assert long.rule is not None
    assert long.rule.endswith("the sum finds no number of 16 GiB cards (bfloat16)")


def test_what_would_fit() -> None:
    shape = read_shape(models.LLAMA_31_8B)
    card = int(16 * GIB * UTILISATION)
    forms = ("none", "fp8", "int4")
    assert would_fit(
        *(shape, None),
        available_bytes=card,
        devices=4,
        forms=forms,
        dtypes=("float32", "float16"),
        context=8192,
        device="gpu",
    ) == (
        'weight_only = "fp8" (10.4 GiB)',
        'weight_only = "int4" (6.9 GiB)',
        "2 GPUs (8.9 GiB each)",
        "4 GPUs (4.8 GiB each)",
    )
    assert would_fit(*(shape, None), available_bytes=card, device="gpu", weight_only="fp8") == (
        "context 47,104 (15.2 GiB)",
    )
    on_nodes = would_fit(
        *(read_shape(models.SMOLLM2_135M), None),
        available_bytes=int(1.2 * GIB),
        devices=3,
        dtypes=("float32", "bfloat16"),
        dtype="float32",
    )
    assert on_nodes == (
        "context 6,144 (1.2 GiB)",
        'dtype = "bfloat16" (0.8 GiB)',
        "3 NUMA nodes (0.7 GiB each)",
    )


def test_nothing_would_fit() -> None:
    shape = read_shape(models.LLAMA_31_8B)
    assert would_fit(shape, available_bytes=GIB, devices=8, forms=("int4",)) == ()
    assert would_fit(shape, available_bytes=100 * GIB, forms=("int4",)) == ()
    assert would_fit(read_shape({}), available_bytes=GIB, devices=8, forms=("int4",)) == ()


configs = st.sampled_from([config for config, _ in models.PUBLISHED.values()])
contexts = st.integers(1, 200_000)
ranks_of = st.integers(1, 64)
devices_of = st.sampled_from(["cpu", "gpu"])


def known(value: int | None) -> int:
    assert value is not None
    return value


@given(configs, contexts, contexts, st.integers(1, 64), st.integers(1, 64), ranks_of)
def test_more_tokens_never_need_less(
    config: Config, context: int, more: int, sequences: int, further: int, ranks: int
) -> None:
    less = size(config, context=context, sequences=sequences, tensor_parallel=ranks)
    longer = size(config, context=context + more, sequences=sequences, tensor_parallel=ranks)
    wider = size(config, context=context, sequences=sequences + further, tensor_parallel=ranks)
    for greater in (longer, wider):
        assert known(less.total_bytes) <= known(greater.total_bytes)
        assert known(less.per_device_bytes) <= known(greater.per_device_bytes)


@given(configs, contexts, st.integers(1, 64), ranks_of, ranks_of, devices_of)
def test_more_ranks_never_hold_more_each(
    config: Config, context: int, sequences: int, few: int, more: int, device: Any
) -> None:
    few, many = sorted((few, few + more))
    asking: Any = {"context": context, "sequences": sequences, "device": device}
    one, other = (size(config, **asking, tensor_parallel=ranks) for ranks in (few, many))
    assert known(other.per_device_bytes) <= known(one.per_device_bytes)


@given(configs, contexts, st.integers(1, 64), ranks_of, st.sampled_from(["none", *FORMS]))
def test_the_total_is_the_sum_of_its_parts(
    config: Config, context: int, sequences: int, ranks: int, form: str
) -> None:
    needs = size(
        config, context=context, sequences=sequences, tensor_parallel=ranks, weight_only=form
    )
    if needs.weights_bytes is None:
        assert needs.total_bytes is None
        assert "weights unknown" in said(needs)
        return
    assert needs.total_bytes == needs.weights_bytes + known(needs.kv_bytes) + known(
        needs.runtime_bytes
    )
    assert known(needs.per_device_bytes) * ranks >= needs.total_bytes
    assert known(needs.per_device_bytes) * ranks < needs.total_bytes + ranks


@given(
    configs,
    st.integers(GIB // 2, 200 * GIB),
    st.integers(1, 16),
    st.none() | contexts,
    st.integers(1, 8),
    devices_of,
)
def test_what_is_said_to_fit_does(
    config: Config,
    available: int,
    devices: int,
    context: int | None,
    sequences: int,
    device: Any,
) -> None:
    shape = read_shape(config)
    asking: Any = {"context": context, "sequences": sequences, "device": device}
    now = size(shape, **asking)
    found = fits(
        shape,
        available_bytes=available,
        devices=devices,
        forms=("none", "int8", "sym_int4"),
        dtypes=("float32", "float16"),
        **asking,
    )
    if known(now.per_device_bytes) <= available:
        assert found == ()
    for fit in found:
        changed: Any = {**asking, fit.key: fit.value}
        assert size(shape, **changed) == fit.needs
        assert known(fit.needs.per_device_bytes) <= available
        assert fit.words(device)
        if fit.key == "context":
            assert isinstance(fit.value, int)
            assert fit.value % CONTEXT_STEP == 0
            longer = size(shape, **{**changed, "context": fit.value + CONTEXT_STEP})
            assert fit.value + CONTEXT_STEP >= known(now.context) or (
                known(longer.per_device_bytes) > available
            )
        if fit.key == "tensor_parallel":
            assert fit.value in (now.splits or ())
            assert fit.needs.tensor_parallel <= devices


@pytest.mark.parametrize(
    ("name", "shape", "part"),
    [
        ("model.embed_tokens.weight", (8, 4), EMBEDDING),
        ("transformer.wte.weight", (8, 4), EMBEDDING),
        ("backbone.embeddings.weight", (8, 4), EMBEDDING),
        ("transformer.embedding.word_embeddings.weight", (8, 4), EMBEDDING),
        ("lm_head.weight", (8, 4), HEAD),
        ("transformer.output_layer.weight", (8, 4), HEAD),
        ("output.weight", (8, 4), HEAD),
        ("model.norm.weight", (4,), NORM),
        ("model.layers.0.input_layernorm.weight", (4,), NORM),
        ("model.layers.0.self_attn.q_norm.weight", (4,), NORM),
        ("transformer.h.0.ln_1.weight", (4,), NORM),
        ("model.layers.0.self_attn.q_proj.weight", (4, 4), LINEAR),
        ("model.layers.0.self_attn.q_proj.bias", (4,), OTHER),
        ("encoder.layers.0.attention.output.weight", (4, 4), LINEAR),
        ("model.layers.0.mlp.gate_proj.weight", (4, 4), LINEAR),
        ("model.layers.0.mlp.gate.weight", (8, 4), ROUTER),
        ("model.layers.0.block_sparse_moe.gate.weight", (8, 4), ROUTER),
        ("model.layers.0.mlp.router.weight", (8, 4), ROUTER),
        ("model.layers.0.mlp.experts.3.up_proj.weight", (4, 4), EXPERT),
        ("model.layers.0.mlp.experts.gate_up_proj", (8, 4, 4), EXPERT),
        ("model.layers.0.block_sparse_moe.input_linear.weight", (8, 4, 4), EXPERT),
        ("model.layers.0.block_sparse_moe.router.layer.weight", (8, 4), ROUTER),
        ("model.layers.0.mlp.shared_experts.up_proj.weight", (4, 4), LINEAR),
        ("block.0.attn.norm.scale", (4,), NORM),
        ("model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4", (90,), SCALE),
        ("model.layers.0.mamba.A_log", (4, 4), OTHER),
        ("model.layers.0.linear_attn.conv1d.weight", (4, 1, 4), OTHER),
        ("vision_tower.encoder.layers.0.fc1.weight", (4, 4), OTHER),
        ("model.visual.blocks.0.mlp.fc1.weight", (4, 4), OTHER),
        ("model.layers.0.self_attn.q_proj.qweight", (1, 4), PACKED),
        ("model.layers.0.self_attn.q_proj.weight_packed", (1, 4), PACKED),
        ("model.layers.0.mlp.experts.down_proj_blocks", (1, 4, 2, 16), PACKED),
        ("model.layers.0.mlp.experts.down_proj_scales", (1, 4, 2), SCALE),
        ("model.layers.0.self_attn.q_proj.weight_scale_inv", (1, 1), SCALE),
        ("model.layers.0.self_attn.q_proj.qzeros", (1, 1), SCALE),
        ("weight", (), OTHER),
        ("", (2, 2), LINEAR),
    ],
)
def test_the_part_of_a_tensor(name: str, shape: tuple[int, ...], part: str) -> None:
    assert part_of(name, shape) == part


def test_tensors_are_counted_by_part() -> None:
    tensors = [
        Tensor("model.embed_tokens.weight", "BF16", (512, 64)),
        Tensor("lm_head.weight", "BF16", (512, 64)),
        Tensor("model.norm.weight", "F32", (64,)),
        Tensor("model.layers.0.mlp.experts.0.up_proj.weight", "F8_E4M3", (64, 64)),
        Tensor("model.layers.0.mlp.experts.0.up_proj.weight_scale_inv", "F32", (1, 1)),
    ]
    weights = weigh(tensors, size_bytes=140_000, complete=True)
    assert weights.parameters is not None
    assert (weights.parameters.embedding, weights.parameters.head) == (512 * 64, 512 * 64)
    assert (weights.parameters.experts, weights.parameters.kept) == (64 * 64, 64)
    assert weights.dtype == "bfloat16"
    assert weights.by_dtype[0] == ("BF16", 2 * 512 * 64)
    assert weigh(tensors, size_bytes=1, complete=False).parameters is None
    packed = [*tensors, Tensor("model.layers.0.self_attn.q_proj.qweight", "I32", (8, 64))]
    assert weigh(packed, size_bytes=1, complete=True) == StoredWeights(
        size_bytes=1,
        dtype="bfloat16",
        by_dtype=(("BF16", 65536), ("F8_E4M3", 4096), ("I32", 512), ("F32", 65)),
        packed=True,
    )


def test_a_head_that_is_stored_beside_the_embedding_it_is_tied_to_counts_once() -> None:
    names = ("model.embed_tokens.weight", "lm_head.weight")
    tensors = [Tensor(name, "BF16", (49152, 576)) for name in names]
    stored = weigh(tensors, size_bytes=4 * EMBEDDINGS, complete=True)
    assert size(models.SMOLLM2_135M, stored).parameters == EMBEDDINGS
    loose = models.SMOLLM2_135M | {"tie_word_embeddings": False}
    assert size(loose, stored).parameters == 2 * EMBEDDINGS
