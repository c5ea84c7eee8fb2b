"""How many parameters a config describes, part by part, for the families that we know."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from engine.core.model.config import Config
from engine.core.model.layers import (
    BOTH,
    CHUNK,
    CONV,
    FULL,
    LATENT,
    LINEAR,
    MAMBA,
    NOTHING,
    WINDOW,
    Layer,
    LayerReader,
    mamba2_inner,
)
from engine.core.model.mixture import Mixture
from engine.core.topology import Missing


@dataclass(frozen=True, slots=True)
class Parameters:
    """Counts by what engines do with them: low-bit forms are for `linear`, `experts`, the head."""

    embedding: int = 0
    head: int = 0
    """0 when the output head is the embedding."""
    linear: int = 0
    experts: int = 0
    """Of all routed experts; each token passes few of them."""
    kept: int = 0
    """Norms, biases, routers, convolutions: what stays as it is."""
    active_share: float = 1.0
    """The share of the experts that one token passes."""

    @property
    def total(self) -> int:
        return self.embedding + self.head + self.linear + self.experts + self.kept

    @property
    def active(self) -> int:
        """What one token passes."""
        return self.total - self.experts + round(self.experts * self.active_share)


@dataclass(frozen=True, slots=True)
class _Family:
    """Where a family differs from llama: two norms a layer, a gated feed-forward, no biases."""

    norms: int = 2
    qkv_bias: bool = False
    output_bias: bool = False
    head_norms: str = ""
    """`head`: one norm the size of a head for queries and one for keys; `all`: for all heads."""
    gated_query: bool = False
    """Twice the query's width: its second half is the output's gate."""
    sinks: bool = False
    matrices: int = 3
    """Of the feed-forward part."""
    expert_bias: bool = False
    router_bias: bool = False
    shared_gate: bool = False


_LLAMA = _Family()
_QWEN2 = _Family(qkv_bias=True)
_QWEN3 = _Family(head_norms="head")
_DELTA = _Family(head_norms="head", gated_query=True)

FAMILIES = {
    **dict.fromkeys(("llama", "mistral", "ministral", "ministral3", "mixtral", "granite"), _LLAMA),
    **dict.fromkeys(("granitemoe", "granitemoehybrid", "bamba", "jamba", "falcon_h1"), _LLAMA),
    **dict.fromkeys(("gemma", "phi3", "smollm3", "internlm3", "llama4", "ernie4_5"), _LLAMA),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "kimi_k2", "minicpm3"), _LLAMA),
    **dict.fromkeys(("qwen2", "qwen2_vl", "qwen2_5_vl", "seed_oss"), _QWEN2),
    **dict.fromkeys(("qwen3", "qwen3_moe", "qwen3_vl", "qwen3_vl_moe"), _QWEN3),
    **dict.fromkeys(("qwen3_next", "qwen3_5_moe"), replace(_DELTA, shared_gate=True)),
    "qwen3_5": _DELTA,
    "qwen2_moe": replace(_QWEN2, shared_gate=True),
    "gemma2": _Family(norms=4),
    "gemma3": _Family(norms=4, head_norms="head"),
    "lfm2": _Family(head_norms="head"),
    "olmo2": _Family(head_norms="all"),
    "olmo3": _Family(head_norms="all"),
    "olmoe": _Family(head_norms="all"),
    **dict.fromkeys(("cohere", "cohere2"), _Family(norms=1)),
    "glm4": _Family(norms=4),
    "glm4_moe": _LLAMA,
    "gpt_oss": _Family(
        qkv_bias=True, output_bias=True, sinks=True, expert_bias=True, router_bias=True
    ),
    "nemotron_h": _Family(norms=1, matrices=2),
}
"""Counted against these models' own classes; a family that is not here has no count."""

_OUTPUT_BIAS_TOO = {"llama", "granite", "gemma", "gemma2", "gemma3", "qwen3", "qwen3_moe"}
"""Families where `attention_bias` also means the output projection."""


def count_parameters(
    config: Config, *, layers: Sequence[Layer], mixture: Mixture | None, tied: bool
) -> Parameters | Missing:
    """Exact for a known family that gives all its numbers, otherwise the reason."""
    reader = LayerReader.of(config)
    family = FAMILIES.get(reader.family)
    if family is None:
        name = repr(reader.family) if reader.family else "not named"
        return Missing("the number of parameters", f"the architecture is {name}: not one we know")
    vocabulary, hidden = config.number("vocab_size"), reader.hidden
    if vocabulary is None or hidden is None:
        return Missing("the number of parameters", "vocab_size or hidden_size is not told")
    counter = _Counter(config, reader, _configured(family, config, reader.family), hidden, mixture)
    whole = Parameters(
        embedding=vocabulary * hidden,
        head=0 if tied else vocabulary * hidden,
        kept=hidden,  # the norm before the head
        active_share=mixture.per_token / mixture.experts if mixture else 1.0,
    )
    mixers: dict[str, tuple[int, int] | None] = {}
    for index, layer in enumerate(layers):
        if layer.kind not in mixers:
            mixers[layer.kind] = counter.mixer(layer.kind)
        mixer, rest = mixers[layer.kind], counter.feed_forward(index, layer.kind)
        if mixer is None or rest is None:
            return Missing(
                "the number of parameters", f"a layer of {layer.kind} is not fully told"
            )
        whole = replace(
            whole,
            linear=whole.linear + mixer[0] + rest.linear,
            experts=whole.experts + rest.experts,
            kept=whole.kept + mixer[1] + rest.kept + counter.family.norms * hidden,
        )
    return whole


def _configured(family: _Family, config: Config, name: str) -> _Family:
    """The family with what its config switches on."""
    if config.has("attention_bias"):
        bias = config.flag("attention_bias")
        output = family.output_bias if name == "gpt_oss" else bias and name in _OUTPUT_BIAS_TOO
        family = replace(family, qkv_bias=bias, output_bias=output)
    if config.flag("attention_out_bias"):
        family = replace(family, output_bias=True)
    if config.flag("use_qk_norm") and name in ("cohere", "glm4_moe"):
        family = replace(family, head_norms="heads" if name == "cohere" else "head")
    return family


@dataclass(frozen=True, slots=True)
class _Counter:
    config: Config
    reader: LayerReader
    family: _Family
    hidden: int
    mixture: Mixture | None

    def mixer(self, kind: str) -> tuple[int, int] | None:
        """Of the part that looks at other tokens: linear weights, and what is kept as it is."""
        plain: dict[str, Callable[[], tuple[int, int] | None]] = {
            **dict.fromkeys((FULL, WINDOW, CHUNK), self._attention),
            LATENT: self._latent,
            LINEAR: self._delta,
            MAMBA: self._mamba,
            CONV: self._convolution,
            BOTH: self._both,
            NOTHING: lambda: (0, 0),
        }
        return plain[kind]() if kind in plain else None

    def _attention(self) -> tuple[int, int] | None:
        heads, kv_heads, size = self.reader.heads, self.reader.kv_heads, self.reader.head_dim
        if not (heads and kv_heads and size) or self.config.has("v_head_dim", "global_head_dim"):
            return None
        family, hidden = self.family, self.hidden
        query, keys = heads * size, 2 * kv_heads * size
        asked = 2 * query if family.gated_query else query
        kept = (asked + keys if family.qkv_bias else 0) + (hidden if family.output_bias else 0)
        norms = {"head": 2 * size, "all": query + keys // 2, "heads": query + keys // 2, "": 0}
        kept += norms[family.head_norms] + (heads if family.sinks else 0)
        return hidden * (asked + keys) + query * hidden, kept

    def _latent(self) -> tuple[int, int] | None:
        config, hidden, heads = self.config, self.hidden, self.reader.heads
        rank, rope = config.number("kv_lora_rank"), config.number("qk_rope_head_dim")
        nope = config.number("qk_nope_head_dim")
        value = config.number("v_head_dim")
        if value is None and not config.has("v_head_dim") and heads:
            value = hidden // heads  # minicpm3
        if not (heads and rank and rope and nope and value):
            return None
        query = heads * (nope + rope)
        if config.has("q_lora_rank"):
            inner = config.number("q_lora_rank")
            if inner is None:
                return None
            asked, kept = hidden * inner + inner * query, inner
        else:
            asked, kept = hidden * query, 0
        linear = asked + hidden * (rank + rope) + rank * heads * (nope + value)
        if config.flag("attention_bias"):
            kept += (config.number("q_lora_rank") or 0) + rank + rope + hidden
        return linear + heads * value * hidden, kept + rank

    def _delta(self) -> tuple[int, int] | None:
        config = self.config
        keys, values = (
            config.number("linear_num_key_heads"),
            config.number("linear_num_value_heads"),
        )
        key, value = config.number("linear_key_head_dim"), config.number("linear_value_head_dim")
        length = config.number("linear_conv_kernel_dim")
        if not (keys and values and key and value and length):
            return None
        into = 2 * keys * key + 2 * values * value + 2 * values
        convolution = (2 * keys * key + values * value) * length
        linear = self.hidden * into + values * value * self.hidden
        return linear, convolution + 2 * values + value

    def _mamba(self) -> tuple[int, int] | None:
        config = self.config
        length = config.number("mamba_d_conv", "conv_kernel")
        state = config.number("mamba_d_state", "ssm_state_size")
        if not (length and state):
            return None
        if config.has("mamba_n_heads", "mamba_num_heads"):
            return self._mamba2(length, state)
        expand = config.number("mamba_expand")
        rank = config.number("mamba_dt_rank") or math.ceil(self.hidden / 16)
        if not expand:
            return None
        inner = expand * self.hidden
        linear = self.hidden * 2 * inner + inner * (rank + 2 * state) + rank * inner
        linear += inner * self.hidden
        # Convolution and its bias, the time step's bias, D, A, jamba's three norms.
        kept = inner * (length + config.flag("mamba_conv_bias", otherwise=True))
        kept += 2 * inner + inner * state + rank + 2 * state
        if config.flag("mamba_proj_bias"):
            kept += 2 * inner + self.hidden
        return linear, kept

    def _mamba2(self, length: int, state: int) -> tuple[int, int] | None:
        config = self.config
        heads = config.number("mamba_n_heads", "mamba_num_heads")
        groups = config.number("mamba_n_groups", "n_groups")
        inner = mamba2_inner(config)
        if not (heads and groups and inner):
            return None
        convolved = inner + 2 * groups * state
        into = inner + convolved + heads
        kept = convolved * (
            length + config.flag("mamba_conv_bias", "use_conv_bias", otherwise=True)
        )
        kept += 3 * heads
        if self.reader.family != "falcon_h1" or config.flag("mamba_rms_norm"):
            kept += inner
        if config.flag("mamba_proj_bias", "use_bias"):
            kept += into + self.hidden
        return self.hidden * into + inner * self.hidden, kept

    def _convolution(self) -> tuple[int, int] | None:
        length = self.config.number("conv_L_cache", "conv_l_cache")
        if not length:
            return None
        bias = 5 * self.hidden if self.config.flag("conv_bias") else 0
        return 4 * self.hidden * self.hidden, self.hidden * length + bias

    def _both(self) -> tuple[int, int] | None:
        attention, mamba = self._attention(), self._mamba()
        if attention is None or mamba is None:
            return None
        return attention[0] + mamba[0], attention[1] + mamba[1]

    def feed_forward(self, index: int, kind: str) -> Parameters | None:
        """Of the part that each token passes alone."""
        family, mixture, hidden = self.family, self.mixture, self.hidden
        if self.reader.family == "nemotron_h" and kind != NOTHING:
            return Parameters()  # its layers are one part each
        if mixture is not None and index in mixture.layers:
            each = family.matrices * hidden * mixture.width
            kept = hidden * mixture.experts + (hidden if family.shared_gate else 0)
            if family.expert_bias:
                kept += mixture.experts * (2 * mixture.width + hidden)
            if family.router_bias:
                kept += mixture.experts
            return Parameters(
                experts=mixture.experts * each,
                linear=family.matrices * hidden * mixture.shared_width,
                kept=kept,
            )
        width = self._dense_width()
        if width is None:
            return None
        bias = (family.matrices - 1) * width + hidden if self.config.flag("mlp_bias") else 0
        return Parameters(linear=family.matrices * hidden * width, kept=bias)

    def _dense_width(self) -> int | None:
        config = self.config
        if self.mixture is not None:
            return self.mixture.dense_width
        if self.reader.family == "granitemoehybrid":
            return config.number("shared_intermediate_size")
        width = config.number("intermediate_size_mlp", "intermediate_size", "block_ff_dim")
        if self.reader.family == "lfm2" and width is not None:
            return _lfm2_width(config, width)
        return width


def _lfm2_width(config: Config, width: int) -> int | None:
    """LFM2 writes the width before it is adjusted."""
    if not config.flag("block_auto_adjust_ff_dim", otherwise=True):
        return width
    multiple = config.number("block_multiple_of") or 256
    scale = config.value("block_ffn_dim_multiplier")
    if scale is not None and (isinstance(scale, bool) or not isinstance(scale, int | float)):
        return None
    if scale is not None and not 0 < scale < 100:
        return None
    scaled = int((1.0 if scale is None else scale) * int(2 * width / 3))
    return -(-scaled // multiple) * multiple
