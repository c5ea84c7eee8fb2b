"""The KV cache and recurrent states of a number of sequences, on one rank and per token."""

from collections import Counter
from dataclasses import dataclass

from engine.core.model.layers import LATENT, Layer
from engine.core.model.shape import ModelShape


@dataclass(frozen=True, slots=True)
class Cache:
    """Bytes, None where they are not known; `notes` say how or why not."""

    rank_bytes: int | None
    """On one rank of a tensor-parallel instance."""
    token_bytes: int | None
    """For one token of one sequence in all layers, in one copy."""
    notes: tuple[str, ...]


def cache_of(
    shape: ModelShape,
    *,
    context: int | None,
    sequences: int,
    ranks: int,
    value_bytes: int | None,
    state_bytes: int | None,
) -> Cache:
    """Key heads are divided over ranks, and kept more than once where there are fewer of them;
    latent caches are kept whole by every rank, recurrent states are divided."""
    reasons = [f"{one.what}: {one.why}" for one in shape.missing if one.what in _CACHE]
    if shape.layers is None or any(layer.why for layer in shape.layers):
        return Cache(None, None, (f"KV cache unknown: {'; '.join(reasons)}",))
    if value_bytes is None or state_bytes is None:
        return Cache(None, None, ("KV cache unknown: its dtype is not told",))
    token = sum(layer.token_values or 0 for layer in shape.layers) * value_bytes
    if context is None:
        why = "the context is neither asked for nor in config.json"
        return Cache(None, token, (f"KV cache unknown: {why}",))
    values = sum(_on_one_rank(layer, ranks) * _seen(layer, context) for layer in shape.layers)
    states = sum(-(-(layer.state_values or 0) // ranks) for layer in shape.layers)
    rank_bytes = (values * value_bytes + states * state_bytes) * sequences
    notes = [
        f"KV cache: {_kinds(shape.layers)}; {token:,} bytes a token x {context:,} tokens x "
        f"{sequences:,} sequence{'s' if sequences > 1 else ''}"
    ]
    whole = sum(_on_one_rank(layer, ranks) for layer in shape.layers) * context
    if values < whole:
        more = (whole - values) * value_bytes * sequences * ranks
        notes.append(
            f"an engine that keeps what slid out of the windows takes {more:,} bytes more"
        )
    if any(layer.kind == LATENT for layer in shape.layers):
        notes.append(
            "latent cache: an engine that widens it to full heads takes many times more"
            + (", and every rank keeps all of it" if ranks > 1 else "")
        )
    if states:
        notes.append(
            f"recurrent states: {states * ranks * state_bytes * sequences:,} bytes in the model's "
            "dtype; engines that keep them in float32 take up to twice that"
        )
    return Cache(rank_bytes, token, tuple(notes))


_CACHE = ("the layers", "the cache", "the model's shape")


def _on_one_rank(layer: Layer, ranks: int) -> int:
    """Values of one token."""
    values = layer.token_values or 0
    if not layer.kv_heads:
        return values
    return values // layer.kv_heads * -(-layer.kv_heads // ranks)


def _seen(layer: Layer, context: int) -> int:
    return context if layer.window is None else min(context, layer.window)


def _kinds(layers: tuple[Layer, ...]) -> str:
    """`8 layers of full attention, 40 of sliding window of 1,024`."""
    counted = Counter(
        layer.kind + (f" of {layer.window:,} tokens" if layer.window else "") for layer in layers
    )
    return ", ".join(
        f"{count} {'layers ' if not index else ''}of {kind}"
        for index, (kind, count) in enumerate(counted.items())
    )
