"""Llama-like models in few operations, compiled; no masks where there is one stream."""

import warnings
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from engine.worker.kv_cache import LeanCache, placed
from engine.worker.linear import MakeProduct, PlainProduct

KNOWN = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
)
_STEADY_ROPES = ("default", "linear", "llama3", "yarn")
"""Kinds of rotation whose frequencies do not change with the length of the context."""


class NotKnown(Exception):
    """Why a model does not run here; transformers can run it."""


class LeanModel:
    """Takes over the weights of a transformers model, which cannot run afterwards.

    The stream between the layers is float32 whatever the weights' type. Within each head the
    values that are rotated together lie side by side, so that a rotation is one product of
    complex numbers; queries and keys are both reordered so, and their products do not change.
    """

    def __init__(
        self,
        module: Any,
        config: Any,
        *,
        max_length: int,
        make: MakeProduct,
        shares_head: bool = True,
    ) -> None:
        """`shares_head`: a head that is the embedding stays so, instead of one that `make`s."""
        why = why_not(module, config)
        if why is not None:
            raise NotKnown(why)
        embedding = module.model.embed_tokens.weight.detach()
        head = module.lm_head
        self.is_tied = shares_head and head.weight.data_ptr() == embedding.data_ptr()
        body = _Body(
            module.model,
            (PlainProduct if self.is_tied else make)(head.weight, head.bias),
            make=make,
            attention=_AttentionShape(config),
            max_length=max_length,
        )
        products = [
            product
            for layer in body.layers
            for product in (layer.qkv, layer.out, layer.gate_up, layer.down)
        ]
        norms = sum(one.weight.nbytes for one in body.modules() if isinstance(one, _Norm))
        shared = 0 if self.is_tied else embedding.nbytes
        self.weights_bytes = shared + norms + sum(one.nbytes for one in (*products, body.head))
        self.token_bytes = norms + sum(one.token_bytes for one in (*products, body.head))
        """What one decode step reads: all but an embedding that is only looked up."""
        self._pools = (
            len(body.layers),
            2 * config.num_key_value_heads,
            _head_size(config),
            embedding.dtype,
        )
        self._run, self.why_not_compiled = _compiled(body)

    def logits(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        cache: LeanCache,
    ) -> torch.Tensor:
        """Of the last token of each row: [rows, vocabulary]."""
        pools, aim = cache.pools(*self._pools)
        made: torch.Tensor = self._run(tokens, positions, mask, pools, *aim)
        return made


def _compiled(body: nn.Module) -> tuple[Any, str | None]:
    """By TorchScript, which calls the operations without Python and without its lock; where it
    cannot, Python calls them, and the reason."""
    try:
        with warnings.catch_warnings():  # torch would rather have us use a C++ compiler
            warnings.simplefilter("ignore")
            return torch.jit.script(body), None
    except Exception as error:  # noqa: BLE001 -- the same operations run as they are
        return body, " ".join(str(error).split())[:200]


class _AttentionShape:
    def __init__(self, config: Any) -> None:
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.size = _head_size(config)
        self.eps = float(config.rms_norm_eps)

    def paired(self, weights: torch.Tensor) -> torch.Tensor:
        """Rows i and i + half of each head, which rotate together, become neighbours."""
        half = self.size // 2
        by_head = weights.detach().view(-1, 2, half, *weights.shape[1:])
        return by_head.transpose(1, 2).reshape(weights.shape)


class _Norm(nn.Module):
    """RMSNorm: the root of the sum of squares and of eps, which stands for one more value."""

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        super().__init__()
        width = len(weight)
        # Times the root of the width, so that no mean needs to be taken.
        self.weight = weight.detach().float() * width**0.5
        self.extra = torch.tensor((width * eps) ** 0.5)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        length = torch.linalg.vector_norm(states, 2.0, [-1], True)  # noqa: FBT003
        return torch.div(states, torch.hypot(length, self.extra)).mul_(self.weight)


class _Layer(nn.Module):
    def __init__(self, layer: Any, make: MakeProduct, shape: _AttentionShape) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = shape.heads, shape.kv_heads, shape.size
        attention, mlp = layer.self_attn, layer.mlp
        query, key, value = (getattr(attention, f"{kind}_proj") for kind in ("q", "k", "v"))
        self.query_norm, self.key_norm = (
            None if norm is None else _Norm(shape.paired(norm.weight), shape.eps)
            for norm in (getattr(attention, "q_norm", None), getattr(attention, "k_norm", None))
        )
        biases = None
        if query.bias is not None:
            biases = torch.cat((shape.paired(query.bias), shape.paired(key.bias), value.bias))
        self.qkv = make(
            torch.cat((shape.paired(query.weight), shape.paired(key.weight), value.weight)),
            biases,
        )
        self.out = make(attention.o_proj.weight, attention.o_proj.bias)
        gate, up = mlp.gate_proj, mlp.up_proj
        self.gate_up = make(
            torch.cat((gate.weight, up.weight)),
            None if gate.bias is None else torch.cat((gate.bias, up.bias)),
        )
        self.down = make(mlp.down_proj.weight, mlp.down_proj.bias)
        self.attention_norm = _Norm(layer.input_layernorm.weight, shape.eps)
        self.mlp_norm = _Norm(layer.post_attention_layernorm.weight, shape.eps)
        # What was packed is not needed twice, and the next layer needs the room.
        layer.self_attn = layer.mlp = None

    def forward(
        self,
        stream: torch.Tensor,
        rotation: torch.Tensor,
        mask: torch.Tensor | None,
        pool: torch.Tensor,
        begin: int,
        end: int,
        past: int,
        places: torch.Tensor | None,
    ) -> None:
        """Adds to the stream, [places, width], in place."""
        heads, kv_heads, size = self.heads, self.kv_heads, self.size
        total, rows = stream.shape[0], end - begin
        count = total // rows
        qkv = self.qkv(self.attention_norm(stream)).float()
        parts = qkv.view(total, heads + 2 * kv_heads, size)
        if self.query_norm is not None and self.key_norm is not None:
            parts[:, :heads] = self.query_norm(parts[:, :heads])
            parts[:, heads : heads + kv_heads] = self.key_norm(parts[:, heads : heads + kv_heads])
        pairs = torch.view_as_complex(parts.view(total, heads + 2 * kv_heads, size // 2, 2))
        pairs[:, : heads + kv_heads].mul_(rotation)
        parts = parts.to(pool.dtype)
        queries = parts[:, :heads]
        states = parts[:, heads:].view(rows, count, 2 * kv_heads, size).transpose(1, 2)
        seen = placed(pool, states, begin, end, past, places)
        keys, values = seen[:, :kv_heads], seen[:, kv_heads:]
        if count == 1:
            # The heads that share keys stand as that many places; one place needs no order.
            grouped = queries.reshape(rows, kv_heads, heads // kv_heads, size)
            mixed = functional.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)
            mixed = mixed.reshape(total, heads * size)
        else:
            if heads != kv_heads:
                keys = keys.repeat_interleave(heads // kv_heads, dim=1)
                values = values.repeat_interleave(heads // kv_heads, dim=1)
            mixed = functional.scaled_dot_product_attention(
                queries.reshape(rows, count, heads, size).transpose(1, 2),
                keys,
                values,
                attn_mask=mask,
                is_causal=mask is None,
            )
            mixed = mixed.transpose(1, 2).reshape(total, heads * size)
        stream.add_(self.out(mixed))
        gate, up = self.gate_up(self.mlp_norm(stream)).chunk(2, dim=1)
        stream.add_(self.down(functional.silu(gate).mul_(up)))


class _Body(nn.Module):
    def __init__(
        self,
        model: Any,
        head: nn.Module,
        *,
        make: MakeProduct,
        attention: _AttentionShape,
        max_length: int,
    ) -> None:
        super().__init__()
        self.embedding = model.embed_tokens.weight.detach()
        self.rotations = _rotations(model.rotary_emb, max_length)
        self.layers = nn.ModuleList(_Layer(layer, make, attention) for layer in model.layers)
        self.norm = _Norm(model.norm.weight, attention.eps)
        self.head = head

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        pools: list[torch.Tensor],
        begin: int,
        end: int,
        past: int,
        places: torch.Tensor | None,
    ) -> torch.Tensor:
        rows, count = tokens.shape
        stream = self.embedding[tokens.reshape(-1)].float()
        rotation = self.rotations[positions.reshape(-1)].unsqueeze(1)
        for number, layer in enumerate(self.layers):
            layer(stream, rotation, mask, pools[number], begin, end, past, places)
        if count > 1:
            stream = stream.view(rows, count, -1)[:, -1]
        made: torch.Tensor = self.head(self.norm(stream))
        return made


def why_not(module: Any, config: Any) -> str | None:
    """Why this model is not known here; None when it is."""
    name = type(module).__name__
    if name not in KNOWN or not type(module).__module__.startswith("transformers."):
        return f"{name} is not one of {', '.join(KNOWN)}"
    if getattr(config, "hidden_act", None) != "silu":
        return f"its activation is {getattr(config, 'hidden_act', None)}"
    kind = getattr(module.model.rotary_emb, "rope_type", "default")
    if kind not in _STEADY_ROPES:
        return f"its rotary embedding is of the kind {kind}"
    if 2 * len(module.model.rotary_emb.inv_freq) != _head_size(config):
        return "it rotates a part of each head only"
    return None


def _head_size(config: Any) -> int:
    own = getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)


def _rotations(rotary: Any, length: int) -> torch.Tensor:
    """[places, pairs], complex: what each pair is multiplied with at each place."""
    angles = torch.outer(torch.arange(length).float(), rotary.inv_freq.float())
    return torch.polar(torch.full_like(angles, float(rotary.attention_scaling)), angles)
