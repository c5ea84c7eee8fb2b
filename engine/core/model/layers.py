"""What each layer of a model keeps of the tokens it has seen: the kinds of attention."""

from collections.abc import Callable
from dataclasses import dataclass

from engine.core.model.config import Config
from engine.core.topology import Missing

MOST_LAYERS = 4096
"""Ten times the deepest model known: a config may claim anything, and we make a list of it."""

FULL, WINDOW, CHUNK = "full attention", "sliding window", "chunked attention"
LATENT, LINEAR, MAMBA, CONV = "latent attention", "linear attention", "mamba", "convolution"
BOTH, SHARED, NOTHING, UNKNOWN = "attention and mamba", "shared cache", "no cache", "unknown"

_NAMES = {
    **dict.fromkeys(("full_attention", "attention", "full", "global", "global_attention"), FULL),
    **dict.fromkeys(("sliding_attention", "sliding_window", "local", "local_attention"), WINDOW),
    "chunked_attention": CHUNK,
    **dict.fromkeys(("linear_attention", "mamba", "mamba2", "recurrent"), LINEAR),
    "conv": CONV,
    "hybrid": BOTH,
    **dict.fromkeys(("mlp", "moe"), NOTHING),
}
_PATTERN = {"M": LINEAR, "*": FULL, "-": NOTHING, "E": NOTHING}
"""Of `hybrid_override_pattern` (nemotron-h)."""

_EVERY_OTHER = {"gemma2": 2, "gpt_oss": 2, "cohere2": 4, "olmo3": 4, "gemma3": 6, "gemma3n": 5}
"""The last of so many layers is full, the others slide: defaults of these families' classes."""

_OTHER_CACHES = {
    **dict.fromkeys(("rwkv", "rwkv5", "rwkv6", "rwkv7", "xlstm"), "a recurrence of its own"),
    **dict.fromkeys(("zamba", "zamba2", "recurrent_gemma", "minimax", "kimi_linear"), "a mixture"),
    **dict.fromkeys(("t5", "bart", "whisper", "mllama", "t5gemma"), "attention across two parts"),
    "deepseek_v4": "a compressed cache",
}
"""Families whose cache none of the formulas below describes."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer keeps, counted in values; None is "not known", and `why` says why."""

    kind: str
    token_values: int | None = 0
    """For each token it can still see; 0 when it keeps no tokens."""
    kv_heads: int | None = None
    """Heads that the token's values belong to; None when they cannot be divided (latent)."""
    window: int | None = None
    """The most tokens that it keeps; None is all of them."""
    state_values: int | None = 0
    """For each sequence, however long."""
    why: str | None = None


@dataclass(frozen=True, slots=True)
class LayerReader:
    """The layers of one config; reading is in the order: named, patterned, the family's habit."""

    config: Config
    family: str
    hidden: int | None
    heads: int | None
    kv_heads: int | None
    head_dim: int | None

    @classmethod
    def of(cls, config: Config) -> "LayerReader":
        hidden = config.number("hidden_size", "n_embd", "d_model")
        heads = config.number("num_attention_heads", "n_head", "n_heads", "num_heads")
        kv_heads = config.number(*KV_HEADS)
        if not config.has(*KV_HEADS):
            # multi_query: one key head for all (falcon, gpt_bigcode).
            kv_heads = 1 if config.flag("multi_query") else heads
        head_dim = config.number("head_dim", "attention_head_dim", "kv_channels")
        if not config.has("head_dim", "attention_head_dim", "kv_channels") and hidden and heads:
            head_dim = hidden // heads or None
        family = (config.text("model_type") or "").removesuffix("_text")
        return cls(config, family, hidden, heads, kv_heads, head_dim)

    def layers(self) -> tuple[Layer, ...] | Missing:
        count = self.config.number("num_hidden_layers", "n_layer", "n_layers", "num_layers")
        kinds = self._kinds(count)
        if isinstance(kinds, Missing):
            return kinds
        shared = self.config.count("num_kv_shared_layers")
        if shared is None:
            return Missing("the layers", "num_kv_shared_layers is not a number")
        # The last layers read what the last one of their kind before them wrote (gemma3n).
        own = len(kinds) - shared if shared < len(kinds) else len(kinds)
        made = {kind: self._layer(kind) for kind in dict.fromkeys(kinds)}
        return tuple(
            made[kind] if index < own else Layer(SHARED) for index, kind in enumerate(kinds)
        )

    def _kinds(self, count: int | None) -> list[str] | Missing:
        pattern = self.config.text("hybrid_override_pattern")
        if pattern is not None:
            return [_PATTERN.get(letter, UNKNOWN) for letter in pattern[:MOST_LAYERS]]
        names = ("layer_types", "layers_block_type")
        if self.config.has(*names):
            words = self.config.words(*names)
            if words is None or (count is not None and len(words) < count):
                return Missing("the layers", f"{names[0]} does not name every layer")
            return [_NAMES.get(word, UNKNOWN) for word in words[: count or MOST_LAYERS]]
        if count is None:
            return Missing("the layers", "num_hidden_layers is not a number above zero")
        if count > MOST_LAYERS:
            return Missing("the layers", f"{count:,} of them are not believable")
        return self._habit(count)

    def _habit(self, count: int) -> list[str] | Missing:
        """What the family does where the config names no layer."""
        config = self.config
        if self.family in ("mamba", "mamba2", "falcon_mamba"):
            return [LINEAR] * count
        if self.family == "falcon_h1":
            return [BOTH] * count
        for name in ("attn_layer_indices", "full_attn_idxs"):  # bamba; lfm2
            if config.has(name):
                full = config.indexes(name)
                if full is None:
                    return Missing("the layers", f"{name} is not a list of numbers")
                other = CONV if name == "full_attn_idxs" else LINEAR
                return [FULL if index in full else other for index in range(count)]
        if config.has("attn_layer_period"):  # jamba
            period, offset = config.number("attn_layer_period"), config.count("attn_layer_offset")
            if period is None or offset is None:
                return Missing("the layers", "attn_layer_period or its offset is not a number")
            return [FULL if index % period == offset else LINEAR for index in range(count)]
        if config.has("linear_num_value_heads") or config.has("full_attention_interval"):
            return self._last_of("full_attention_interval", 4, LINEAR, count)
        if config.has("attention_chunk_size") or self.family == "llama4":
            return self._last_of("no_rope_layer_interval", 4, CHUNK, count)
        return self._windows(count)

    def _windows(self, count: int) -> list[str] | Missing:
        config = self.config
        pattern = config.text("sliding_window_pattern", "window_pattern")
        if pattern is not None:  # exaone4 spells it: LLLG
            letters = {"L": WINDOW, "G": FULL}
            return [letters.get(pattern[index % len(pattern)], UNKNOWN) for index in range(count)]
        if config.has("sliding_window_pattern") or self.family in _EVERY_OTHER:
            every = _EVERY_OTHER.get(self.family, 6)
            return self._last_of("sliding_window_pattern", every, WINDOW, count)
        window = config.count("sliding_window", "sliding_window_size", otherwise=0)
        # Qwen's configs carry a window that they do not use, the others use what they carry.
        uses = config.flag("use_sliding_window", otherwise=not self.family.startswith("qwen"))
        if window == 0 or not uses:
            return [FULL] * count
        first = config.count("max_window_layers")
        if first is None or window is None:
            return Missing("the layers", "sliding_window or max_window_layers is not a number")
        if self.family == "smollm3":
            return self._last_of("no_rope_layer_interval", 4, FULL, count)
        return [WINDOW if index >= first else FULL for index in range(count)]

    def _last_of(self, name: str, otherwise: int, kind: str, count: int) -> list[str] | Missing:
        every = self.config.number(name)
        if every is None:
            if self.config.has(name):
                return Missing("the layers", f"{name} is not a number above zero")
            every = otherwise
        return [kind if (index + 1) % every else FULL for index in range(count)]

    def _layer(self, kind: str) -> Layer:
        if self.family in _OTHER_CACHES:
            return _unknown(f"{self.family} keeps {_OTHER_CACHES[self.family]}")
        makers: dict[str, Callable[[], Layer]] = {
            FULL: self._full,
            WINDOW: lambda: self._window(WINDOW, "sliding_window", "sliding_window_size"),
            CHUNK: lambda: self._window(CHUNK, "attention_chunk_size"),
            LINEAR: self._state,
            CONV: self._convolution,
            BOTH: self._both,
            NOTHING: lambda: Layer(NOTHING),
        }
        return makers[kind]() if kind in makers else _unknown("a layer of a kind we do not know")

    def _full(self) -> Layer:
        config = self.config
        if config.has("kv_lora_rank"):
            rank, rope = config.number("kv_lora_rank"), config.count("qk_rope_head_dim")
            if config.has("index_head_dim"):
                return _unknown("its sparse attention keeps keys of an indexer beside the latents")
            if rank is None or rope is None:
                return _unknown("kv_lora_rank or qk_rope_head_dim is not a number")
            return Layer(LATENT, rank + rope)
        heads, size = self.kv_heads, self.head_dim
        if config.has("global_head_dim"):  # gemma4: its full layers have wider and fewer heads
            size = config.number("global_head_dim")
            if config.flag("attention_k_eq_v") and config.has("num_global_key_value_heads"):
                heads = config.number("num_global_key_value_heads")
        return self._keys_and_values(FULL, heads, size)

    def _keys_and_values(
        self, kind: str, heads: int | None, size: int | None, window: int | None = None
    ) -> Layer:
        value_size = self.config.number("v_head_dim") if self.config.has("v_head_dim") else size
        if heads is None or size is None or value_size is None:
            return _unknown("the number or size of its key heads is not told")
        return Layer(kind, heads * (size + value_size), heads, window)

    def _window(self, kind: str, *names: str) -> Layer:
        window = self.config.number(*names)
        if window is None:
            return _unknown(f"{names[0]} is not a number above zero")
        return self._keys_and_values(kind, self.kv_heads, self.head_dim, window)

    def _convolution(self) -> Layer:
        length = self.config.number("conv_L_cache", "conv_l_cache")
        if length is None or self.hidden is None:
            return _unknown("the length of its convolution is not told")
        return Layer(CONV, state_values=self.hidden * length)

    def _both(self) -> Layer:
        attention, state = self._full(), self._state()
        why = attention.why or state.why
        return Layer(
            BOTH, attention.token_values, attention.kv_heads, None, state.state_values, why
        )

    def _state(self) -> Layer:
        sizes = state_sizes(self.config)
        if sizes is None:
            return _unknown("the size of its recurrent state is not told in words that we know")
        return Layer(
            LINEAR if self.config.has("linear_num_value_heads") else MAMBA, state_values=sum(sizes)
        )


KV_HEADS = (
    *("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"),
    "num_attention_groups",
)


def state_sizes(config: Config) -> tuple[int, int] | None:
    """Values of the convolution's memory and of the recurrence, for one sequence in one layer."""
    if config.has("linear_num_value_heads"):  # gated delta net (qwen3-next)
        keys, values = (
            config.number("linear_num_key_heads"),
            config.number("linear_num_value_heads"),
        )
        key, value = config.number("linear_key_head_dim"), config.number("linear_value_head_dim")
        length = config.number("linear_conv_kernel_dim")
        if not (keys and values and key and value and length):
            return None
        return (2 * keys * key + values * value) * length, values * key * value
    length = config.number("mamba_d_conv", "conv_kernel", "d_conv")
    state = config.number("mamba_d_state", "ssm_state_size", "state_size", "d_state")
    if not (length and state):
        return None
    if config.has("mamba_n_heads", "mamba_num_heads") or config.text("model_type") == "mamba2":
        inner, groups = mamba2_inner(config), config.number("mamba_n_groups", "n_groups")
        if not (inner and groups):
            return None
        return (inner + 2 * groups * state) * length, inner * state
    expand = config.number("mamba_expand", "expand")
    hidden = config.number("hidden_size", "d_model")
    if not (expand and hidden):
        return None
    return expand * hidden * length, expand * hidden * state


def mamba2_inner(config: Config) -> int | None:
    """Heads times their size; falcon-h1 says the product, others leave the size to be divided."""
    if config.has("mamba_d_ssm"):
        return config.number("mamba_d_ssm")
    heads = config.number("mamba_n_heads", "mamba_num_heads", "num_heads")
    size = config.number("mamba_d_head", "mamba_head_dim")
    if size is None and config.text("model_type") == "mamba2":
        size = config.number("head_dim")
    if heads and size:
        return heads * size
    expand, hidden = config.number("mamba_expand", "expand"), config.number("hidden_size")
    return expand * hidden if expand and hidden else None


def _unknown(why: str) -> Layer:
    return Layer(UNKNOWN, None, None, None, None, why)
