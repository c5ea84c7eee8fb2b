"""Which layers of a model are mixtures of experts, and how large the experts are."""

from dataclasses import dataclass

from engine.core.model.config import Config

EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


@dataclass(frozen=True, slots=True)
class Mixture:
    experts: int
    per_token: int
    width: int
    """Of one expert."""
    shared_width: int
    """Of what every token passes beside its experts; 0 when there is nothing."""
    dense_width: int | None
    """Of the layers that are no mixtures."""
    layers: frozenset[int]
    """Indexes of the layers that are mixtures."""
    of_layers: int


def read_mixture(config: Config, layers: int | None) -> tuple[Mixture | None, str | None]:
    """The mixture (None: the model is dense) and, when it cannot be told, why."""
    if not config.has(*EXPERTS) or layers is None:
        return None, None
    experts = config.count(*EXPERTS)
    if experts in (0, 1):
        return None, None
    per_token = config.number(
        "num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "moe_k"
    )
    width = config.number(
        "moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size", "ffn_hidden_size"
    )
    where = _layers(config, layers)
    shared = _shared_width(config, width)
    if not (experts and per_token and width) or shared is None or where is None:
        return None, "the experts' number, width or layers are not told in words that we know"
    if not where:
        return None, None
    dense = config.number("intermediate_size_mlp", "intermediate_size")
    return Mixture(
        experts, min(per_token, experts), width, shared, dense, frozenset(where), layers
    ), None


def _shared_width(config: Config, width: int | None) -> int | None:
    told = config.count(
        *("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size"),
        *("shared_intermediate_size", "share_expert_dim"),
        otherwise=None,
    )
    if told is not None:
        return told
    if (config.text("model_type") or "").startswith("llama4"):
        return width  # always one, of the experts' own width
    number = config.count("n_shared_experts", "num_shared_experts")
    return None if number is None or width is None else number * width


def _layers(config: Config, layers: int) -> set[int] | None:
    every = range(layers)
    kinds = config.words("mlp_layer_types")
    if kinds is not None:
        return {index for index in every if kinds[index : index + 1] in (("sparse",), ("moe",))}
    for name in ("moe_layers", "mlp_only_layers"):
        if config.has(name) and config.indexes(name) is None:
            return None
    listed = config.indexes("moe_layers")
    if listed is not None:
        return {index for index in every if index in listed}
    if config.has("interleave_moe_layer_step"):  # llama4: the last of each group
        step = config.number("interleave_moe_layer_step")
        return set(range(step - 1, layers, step)) if step else None
    if config.has("expert_layer_period"):  # jamba
        period, offset = config.number("expert_layer_period"), config.count("expert_layer_offset")
        if period is None or offset is None:
            return None
        return {index for index in every if index % period == offset}
    if config.text("model_type") == "nemotron_h":  # each layer is one part, named
        pattern = config.text("hybrid_override_pattern") or ""
        named = config.words("layers_block_type", "layer_types") or tuple(pattern)
        return {index for index in every if named[index : index + 1] in (("moe",), ("E",))}
    dense = config.indexes("mlp_only_layers") or frozenset()
    step = config.number("decoder_sparse_step", "moe_layer_freq")
    if step is None and config.has("decoder_sparse_step", "moe_layer_freq"):
        return None
    step = step or 1
    first = config.count("first_k_dense_replace", "num_dense_layers")
    if first is None:
        return None
    if config.has("decoder_sparse_step"):  # qwen counts from one, deepseek from zero
        return {index for index in every if (index + 1) % step == 0 and index not in dense}
    return {index for index in every if index >= first and index % step == 0}
