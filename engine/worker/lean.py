"""Llama-like models in few operations: no modules, no masks for one stream, fused products."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from engine.worker.kv_cache import LeanCache
from engine.worker.linear import Linear, PlainLinear, quick_linear

KNOWN = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
)
_STEADY_ROPES = ("default", "linear", "llama3", "yarn")
"""Kinds of rotation whose frequencies do not change with the length of the context."""

MakeLinear = Callable[[torch.Tensor, torch.Tensor | None], Linear]


class NotKnown(Exception):
    """Why a model does not run here; transformers can run it."""


@dataclass(frozen=True)
class _Norm:
    weight: torch.Tensor
    """Times the root of the width, so that no mean needs to be taken."""
    extra: torch.Tensor

    @property
    def nbytes(self) -> int:
        return int(self.weight.nbytes)


@dataclass(frozen=True)
class _Layer:
    attention_norm: _Norm
    qkv: Linear
    query_norm: _Norm | None
    key_norm: _Norm | None
    out: Linear
    mlp_norm: _Norm
    gate_up: Linear
    down: Linear


class LeanModel:
    """Takes over the weights of a transformers model, which cannot run afterwards.

    The stream between the layers is float32 whatever the weights' type. Within each head the
    values that are rotated together lie side by side, so that a rotation is one product of
    complex numbers; queries and keys are both reordered so, and their products do not change.
    """

    def __init__(
        self, module: Any, config: Any, *, max_length: int, int8: MakeLinear | None
    ) -> None:
        why = why_not(module, config)
        if why is not None:
            raise NotKnown(why)
        make = int8 or quick_linear
        body = module.model
        self._heads = config.num_attention_heads
        self._kv_heads = config.num_key_value_heads
        self._size = _head_size(config)
        self._eps = float(config.rms_norm_eps)
        self._dtype: torch.dtype = body.embed_tokens.weight.dtype
        self._embedding = body.embed_tokens.weight.detach()
        self._norm = self._norm_of(body.norm.weight.detach())
        self._rotations = _rotations(body.rotary_emb, max_length)
        self._layers: list[_Layer] = []
        for layer in body.layers:
            self._layers.append(self._taken_over(layer, make))
        head = module.lm_head.weight
        self.is_tied = head.data_ptr() == self._embedding.data_ptr()
        if int8 is not None or not self.is_tied:
            self._head = make(head, module.lm_head.bias)
            self.is_tied = False
        else:
            self._head = PlainLinear(head, module.lm_head.bias)

    @property
    def weights_bytes(self) -> int:
        embedding = 0 if self.is_tied else self._embedding.nbytes
        return embedding + self._head.nbytes + self._layers_bytes("nbytes")

    @property
    def token_bytes(self) -> int:
        """What one decode step reads: all but an embedding that is only looked up."""
        return self._head.token_bytes + self._layers_bytes("token_bytes")

    def logits(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        cache: LeanCache,
    ) -> torch.Tensor:
        """Of the last token of each row: [rows, vocabulary]."""
        rows, count = tokens.shape
        stream = self._embedding[tokens.reshape(-1)].float()
        rotation = self._rotations[positions.reshape(-1)].unsqueeze(1)
        for number, layer in enumerate(self._layers):
            normed = self._normed(stream, layer.attention_norm)
            mixed = self._attended(layer.qkv.product(normed), rotation, mask, cache, number)
            stream.add_(layer.out.product(mixed))
            normed = self._normed(stream, layer.mlp_norm)
            gate, up = layer.gate_up.product(normed).chunk(2, dim=1)
            stream.add_(layer.down.product(functional.silu(gate).mul_(up)))
        if count > 1:
            stream = stream.view(rows, count, -1)[:, -1]
        return self._head.product(self._normed(stream, self._norm))

    def _attended(
        self,
        qkv: torch.Tensor,
        rotation: torch.Tensor,
        mask: torch.Tensor | None,
        cache: LeanCache,
        number: int,
    ) -> torch.Tensor:
        heads, kv_heads, size = self._heads, self._kv_heads, self._size
        layer = self._layers[number]
        places, rows = qkv.shape[0], cache.aimed_rows
        count = places // rows
        parts = qkv.float().view(places, heads + 2 * kv_heads, size)
        if layer.query_norm is not None and layer.key_norm is not None:
            for begin, end, norm in (
                (0, heads, layer.query_norm),
                (heads, heads + kv_heads, layer.key_norm),
            ):
                parts[:, begin:end] = self._normed(parts[:, begin:end], norm)
        pairs = torch.view_as_complex(parts.view(places, -1, size // 2, 2))
        pairs[:, : heads + kv_heads].mul_(rotation)
        if self._dtype != torch.float32:
            parts = parts.to(self._dtype)
        queries, states = parts.split((heads, 2 * kv_heads), dim=1)
        keys, values = cache.place(states.unflatten(0, (rows, count)).transpose(1, 2), number)
        if count == 1:
            # The heads that share keys stand as that many places; one place needs no order.
            grouped = queries.reshape(rows, kv_heads, heads // kv_heads, size)
            made = functional.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)
            return made.reshape(places, heads * size)
        if heads != kv_heads:
            keys = keys.repeat_interleave(heads // kv_heads, dim=1)
            values = values.repeat_interleave(heads // kv_heads, dim=1)
        made = functional.scaled_dot_product_attention(
            queries.reshape(rows, count, heads, size).transpose(1, 2),
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None,
        )
        return made.transpose(1, 2).reshape(places, heads * size)

    def _normed(self, states: torch.Tensor, norm: _Norm) -> torch.Tensor:
        """RMSNorm: the root of the sum of squares and of eps, which stands for one more value."""
        length = torch.linalg.vector_norm(states, 2, -1, True)  # noqa: FBT003
        return torch.div(states, torch.hypot(length, norm.extra)).mul_(norm.weight)

    def _norm_of(self, weight: torch.Tensor) -> _Norm:
        width = len(weight)
        return _Norm(weight.float() * width**0.5, torch.tensor((width * self._eps) ** 0.5))

    def _layers_bytes(self, kind: str) -> int:
        return sum(
            sum(getattr(one, kind) for one in (layer.qkv, layer.out, layer.gate_up, layer.down))
            + layer.attention_norm.nbytes
            + layer.mlp_norm.nbytes
            for layer in self._layers
        )

    def _taken_over(self, layer: Any, make: MakeLinear) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        query, key, value = (getattr(attention, f"{kind}_proj") for kind in ("q", "k", "v"))
        query_norm, key_norm = (
            None if norm is None else self._norm_of(self._paired(norm.weight))
            for norm in (getattr(attention, "q_norm", None), getattr(attention, "k_norm", None))
        )
        biases = None
        if query.bias is not None:
            biases = torch.cat((self._paired(query.bias), self._paired(key.bias), value.bias))
        qkv = torch.cat((self._paired(query.weight), self._paired(key.weight), value.weight))
        gate, up = mlp.gate_proj, mlp.up_proj
        made = _Layer(
            attention_norm=self._norm_of(layer.input_layernorm.weight.detach()),
            qkv=make(qkv, biases),
            query_norm=query_norm,
            key_norm=key_norm,
            out=make(attention.o_proj.weight, attention.o_proj.bias),
            mlp_norm=self._norm_of(layer.post_attention_layernorm.weight.detach()),
            gate_up=make(
                torch.cat((gate.weight, up.weight)),
                None if gate.bias is None else torch.cat((gate.bias, up.bias)),
            ),
            down=make(mlp.down_proj.weight, mlp.down_proj.bias),
        )
        # What was packed is not needed twice, and the next layer needs the room.
        layer.self_attn = layer.mlp = None
        return made

    def _paired(self, weights: torch.Tensor) -> torch.Tensor:
        """Rows i and i + half of each head, which rotate together, become neighbours."""
        half = self._size // 2
        by_head = weights.detach().view(-1, 2, half, *weights.shape[1:])
        return by_head.transpose(1, 2).reshape(weights.shape)


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
