"""How much memory a model needs: weights, KV cache and runtime, whole and on each device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict, Unpack

from engine.core.model.cache import cache_of
from engine.core.model.parameters import Parameters
from engine.core.model.quantization import DTYPE_BYTES, cache_bytes, plain_dtype
from engine.core.model.rule import agreement, card_rule
from engine.core.model.shape import ModelShape, read_shape
from engine.core.model.tensors import StoredWeights
from engine.core.model.weights import weigh_as

MIB, GIB = 1 << 20, 1 << 30

FRAMEWORK_BYTES = {"cpu": 384 * MIB, "gpu": 768 * MIB}
"""For each rank beside weights, cache and activations: an estimate.

CPU: PyTorch with a model of 135M parameters takes 0.35 GB beside its weights in float32 and in
bfloat16; vLLM's processes take about 2 GB in all. GPU: driver context, compiled kernels and
oneCCL's buffers; vLLM's XPU worker measures it itself while it starts and tells nobody before."""

STEP_TOKENS = 2048
"""Prompt tokens that one step takes at most: vLLM's `max-num-batched-tokens` for online use."""
UTILISATION = 0.95
"""The share of a card that engines are told to take: Intel's own launchers say 0.95."""
MOST_DEVICES = 64
"""Splits beyond it are not tried."""
_BELIEVABLE = 1 << 60

Device = Literal["cpu", "gpu"]


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes; None is "not known", and `notes` say why."""

    weights_bytes: int | None = None
    """Of the whole instance."""
    kv_bytes: int | None = None
    """Of the whole instance, every sequence at full length; copies on several ranks counted."""
    total_bytes: int | None = None
    """Weights, cache and runtime of the whole instance."""
    runtime_bytes: int | None = None
    """Activations and the framework, of all ranks: an estimate."""
    per_device_bytes: int | None = None
    """What the fullest rank holds."""
    kv_bytes_per_token: int | None = None
    """What each further token adds while every window still grows, in one copy."""
    parameters: int | None = None
    active_parameters: int | None = None
    """What one token passes; fewer than all in a mixture of experts."""
    context: int | None = None
    sequences: int = 1
    tensor_parallel: int = 1
    splits: tuple[int, ...] | None = None
    """Lawful tensor-parallel sizes."""
    notes: tuple[str, ...] = ()
    """The sum in words, and what is not known and why."""
    rule: str | None = None
    """The public rule for cards beside the sum, and whether the two agree."""


class Asking(TypedDict, total=False):
    """What one asks of a model; what is left out is as in the comment."""

    dtype: str  # auto: as it is stored
    weight_only: str  # none
    context: int | None  # None: the model's longest
    sequences: int  # 1
    tensor_parallel: int  # 1
    device: Device  # cpu
    kv_dtype: str  # auto: the model's own
    framework_bytes: int | None  # None: FRAMEWORK_BYTES of the device


def size(
    shape: ModelShape | Mapping[str, object] | None,
    stored: StoredWeights | int | None = None,
    *,
    card_bytes: int | None = None,
    **asking: Unpack[Asking],
) -> Needs:
    """The sum for one instance.

    `shape` may be a config.json's mapping, `stored` a number of bytes. `card_bytes` is one GPU's
    whole memory: with it the public rule for cards is set beside.
    """
    if not isinstance(shape, ModelShape):
        shape = read_shape(shape)
    if not isinstance(stored, StoredWeights):
        stored = StoredWeights(size_bytes=stored)
    asked = _Asked.of(shape, asking)
    needs = _sum(shape, stored, asked, max(1, asking.get("tensor_parallel", 1)))
    if asked.device == "gpu" and card_bytes is not None:
        needs = replace(needs, rule=_rule(shape, stored, asked, needs, card_bytes))
    return needs


@dataclass(frozen=True, slots=True)
class _Asked:
    dtype: str
    weight_only: str
    context: int | None
    sequences: int
    device: Device
    kv_dtype: str
    framework_bytes: int

    @classmethod
    def of(cls, shape: ModelShape, asking: Asking) -> "_Asked":
        device, context = asking.get("device", "cpu"), asking.get("context")
        framework = asking.get("framework_bytes")
        return cls(
            dtype=asking.get("dtype", "auto"),
            weight_only=asking.get("weight_only", "none"),
            # vLLM's -1 is "as long as the model can" too.
            context=context if context is not None and context > 0 else shape.max_length,
            sequences=max(1, asking.get("sequences", 1)),
            device=device,
            kv_dtype=asking.get("kv_dtype", "auto"),
            framework_bytes=FRAMEWORK_BYTES[device] if framework is None else framework,
        )


def _sum(shape: ModelShape, stored: StoredWeights, asked: _Asked, ranks: int) -> Needs:
    dtype = plain_dtype(asked.dtype)
    if asked.dtype == "auto":
        dtype = plain_dtype(shape.dtype) or stored.dtype
    weights = weigh_as(shape, stored, dtype=dtype, weight_only=asked.weight_only)
    width = DTYPE_BYTES[dtype] if dtype else None
    cache = cache_of(
        shape,
        context=asked.context,
        sequences=asked.sequences,
        ranks=ranks,
        value_bytes=cache_bytes(asked.kv_dtype, width),
        state_bytes=width,
    )
    runtime, runtime_note = _runtime(shape, asked, ranks, width)
    notes = [*weights.notes, *cache.notes, runtime_note]
    weights_bytes, kv_rank = _believed(weights.size_bytes), _believed(cache.rank_bytes)
    kv_bytes = None if kv_rank is None else kv_rank * ranks
    total = per_device = None
    if weights_bytes is not None and kv_rank is not None and runtime is not None:
        per_device = -(-weights_bytes // ranks) + kv_rank + runtime
        total = weights_bytes + kv_rank * ranks + runtime * ranks
        if ranks > 1:
            notes.append(f"each of {ranks}: weights / {ranks} + its part of the cache + runtime")
    if asked.context and shape.max_length and asked.context > shape.max_length:
        notes.append(f"the model's longest context is {shape.max_length:,}")
    splits = shape.splits
    if splits is not None and ranks not in splits:
        notes.append(
            f"{ranks} ranks do not divide {shape.heads} attention heads with their key heads and "
            f"widths: {', '.join(map(str, splits))} would"
        )
    parameters = weights.parameters
    return Needs(
        weights_bytes=weights_bytes,
        kv_bytes=kv_bytes,
        total_bytes=total,
        runtime_bytes=None if runtime is None else runtime * ranks,
        per_device_bytes=per_device,
        kv_bytes_per_token=_believed(cache.token_bytes),
        parameters=parameters.total if parameters else None,
        active_parameters=_active(parameters, shape),
        context=asked.context,
        sequences=asked.sequences,
        tensor_parallel=ranks,
        splits=splits,
        notes=tuple(notes),
    )


def _active(parameters: Parameters | None, shape: ModelShape) -> int | None:
    if parameters is None or (shape.mixture is not None and not parameters.experts):
        return None  # a mixture of which only the total is known
    return parameters.active


def _believed(value: int | None) -> int | None:
    """A made-up config may describe more memory than there is in the world."""
    return value if value is not None and value < _BELIEVABLE else None


def _runtime(
    shape: ModelShape, asked: _Asked, ranks: int, width: int | None
) -> tuple[int | None, str]:
    """One rank's activations and framework.

    A step holds the stream, queries, keys and the attention's answer (each about the hidden size)
    and three feed-forward widths for every token in it, then float32 scores and probabilities
    over the vocabulary for each sequence. GPUStack's rule for the same, weights x 1.2 + 2 GiB with
    some cache in it, grows with weights that take no more room while they work.
    """
    hidden, vocabulary, context = shape.hidden, shape.vocabulary, asked.context
    if hidden is None or vocabulary is None or context is None or width is None:
        return None, "runtime unknown: hidden size, vocabulary, context or dtype is not told"
    wide = shape.width or 4 * hidden  # what models are built like when they do not say
    tokens = min(STEP_TOKENS, context * asked.sequences)
    values = tokens * (4 * hidden + 3 * -(-wide // ranks))
    scores = asked.sequences * 2 * -(-vocabulary // ranks)
    activations = values * width + scores * 4
    return asked.framework_bytes + activations, (
        f"runtime, an estimate: {_mib(activations)} of activations for steps of {tokens:,} tokens "
        f"+ {_mib(asked.framework_bytes)} of framework on each {asked.device.upper()} rank"
    )


def _rule(
    shape: ModelShape, stored: StoredWeights, asked: _Asked, needs: Needs, card_bytes: int
) -> str | None:
    rule = card_rule(needs.parameters, card_bytes, asked.weight_only)
    if rule is None:
        return None
    if needs.per_device_bytes is None or needs.splits is None:
        return f"{rule.words}; the sum is not known"
    available = int(card_bytes * UTILISATION)
    fewest = fewest_devices(
        [_sum(shape, stored, asked, ranks) for ranks in needs.splits if ranks <= MOST_DEVICES],
        available,
    )
    words = asked.dtype if asked.dtype != "auto" else str(shape.dtype or stored.dtype)
    if asked.weight_only != "none":
        words = f"{asked.weight_only} weights"
    elif shape.stored_form is not None:
        words = f"{shape.stored_form} weights"
    return agreement(rule, fewest, words=words, card_bytes=card_bytes)


def fewest_devices(needs: Sequence[Needs], available_bytes: int) -> int | None:
    """The smallest of several splits whose fullest rank fits; None when none does."""
    return min(
        (
            one.tensor_parallel
            for one in needs
            if one.per_device_bytes is not None and one.per_device_bytes <= available_bytes
        ),
        default=None,
    )


def _mib(count: int) -> str:
    return f"{count / MIB:,.0f} MiB"
