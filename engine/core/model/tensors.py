"""What a checkpoint's tensors are, by their names: counted into the parts that engines treat."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.core.model.parameters import Parameters

EMBEDDING, HEAD, NORM, ROUTER = "embedding", "head", "norm", "router"
EXPERT, LINEAR, OTHER, SCALE, PACKED = "expert", "linear", "other", "scale", "packed"

PLAIN = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The dtypes of safetensors that are weights as they are, by our names."""
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
"""Width of a dtype in a safetensors header."""

_SENSES = frozenset(
    (
        *("visual", "vision_tower", "vision_model", "vision_embed_tokens", "merger"),
        *("audio_tower", "audio_model", "embed_vision", "embed_audio"),
        *("multi_modal_projector", "mm_projector"),
    )
)
_EMBEDDINGS = frozenset(
    (
        *("embed_tokens", "wte", "word_embeddings", "tok_embeddings", "embeddings", "wpe"),
        *("token_embd", "embed_tokens_per_layer", "embed_in", "embedding"),
    )
)
_HEADS = frozenset(("lm_head", "embed_out", "output_layer", "output", "head"))
_ROUTERS = frozenset(("gate", "router", "shared_expert_gate", "moe_gate"))
_SCALES = ("scale", "scales", "scale_inv", "qzeros", "zero_point", "g_idx", "absmax")
_PACKS = ("qweight", "weight_packed", "_blocks", "in_weight")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as a safetensors header tells of it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """The weights that lie on a disk."""

    size_bytes: int | None = None
    """Of the weights, as the index or the files say."""
    parameters: Parameters | None = None
    """Counted exactly; None when not every header was read, or when the weights are packed."""
    dtype: str | None = None
    """What most of the plain weights are in."""
    by_dtype: tuple[tuple[str, int], ...] = ()
    """Elements by the header's dtype, most first."""
    packed: bool = False
    """Whether they are low-bit already, so that elements and bytes tell no parameters."""
    notes: tuple[str, ...] = ()
    """What is odd about the files, in words."""


def part_of(name: str, shape: Sequence[int]) -> str:
    """Which part a tensor belongs to. Only `linear`, `expert` and `head` have low-bit forms."""
    words = name.split(".")
    last, before = words[-1], words[-2] if len(words) > 1 else words[-1]
    if (last.endswith(_SCALES) and "norm" not in before) or "quant_" in before + last:
        return SCALE
    if last.endswith(_PACKS):
        return PACKED
    if _SENSES.intersection(words):
        return OTHER  # engines leave what sees and hears as it is stored
    if before in _HEADS and "layers" not in words and "h" not in words:
        return HEAD if last == "weight" else OTHER
    if _EMBEDDINGS.intersection(words[-3:]):
        return EMBEDDING
    if "norm" in before or "norm" in last or before.startswith("ln_"):
        return NORM
    if len(shape) < 2 or "conv" in before or last == "A_log" or last.endswith("bias"):
        return OTHER
    if _ROUTERS.intersection(words[-3:-1]):
        return ROUTER
    # Experts have a number in their name, or lie stacked in one tensor (granite says no more).
    return EXPERT if "experts" in words or len(shape) == 3 else LINEAR


def weigh(
    tensors: Iterable[Tensor],
    *,
    size_bytes: int | None,
    complete: bool,
    notes: Sequence[str] = (),
) -> StoredWeights:
    """The sum over all headers; `complete` says that every tensor of the model is among them."""
    by_dtype: Counter[str] = Counter()
    parts: Counter[str] = Counter()
    packed = False
    for tensor in tensors:
        by_dtype[tensor.dtype] += tensor.elements
        part = part_of(tensor.name, tensor.shape)
        # Two 4-bit weights lie in one byte, eight in one I32: elements are no parameters then.
        weight = part in (LINEAR, EXPERT) and tensor.dtype not in PLAIN
        if part == PACKED or (weight and not tensor.dtype.startswith("F8_")):
            packed = True
        elif part != SCALE:
            parts[part] += tensor.elements
    plain = [dtype for dtype, _ in by_dtype.most_common() if dtype in PLAIN]
    return StoredWeights(
        size_bytes=size_bytes,
        parameters=_parameters(parts) if complete and parts and not packed else None,
        dtype=PLAIN[plain[0]] if plain else None,
        by_dtype=tuple(by_dtype.most_common()),
        packed=packed,
        notes=tuple(notes),
    )


def _parameters(parts: Counter[str]) -> Parameters:
    return Parameters(
        embedding=parts[EMBEDDING],
        head=parts[HEAD],
        linear=parts[LINEAR],
        experts=parts[EXPERT],
        kept=parts[NORM] + parts[ROUTER] + parts[OTHER],
    )
