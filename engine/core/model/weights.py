"""How many bytes a model's weights take in the form that an engine gives them."""

from dataclasses import dataclass, replace

from engine.core.model.parameters import Parameters
from engine.core.model.quantization import DTYPE_BYTES, FORMS, StoredForm, plain_dtype, same_form
from engine.core.model.shape import ModelShape
from engine.core.model.tensors import StoredWeights

_SOME_FORM = StoredForm("packed", None, None)
_BY_CONFIG = "by the config"
_PACKED_WHEN_LOADED = ("int8", "int4")
"""Forms of our worker, which reads the files as they are and packs layer by layer."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes and parameters, None where they are not known; `notes` say how or why not."""

    size_bytes: int | None
    parameters: Parameters | None
    notes: tuple[str, ...]


def weigh_as(
    shape: ModelShape, stored: StoredWeights, *, dtype: str | None, weight_only: str
) -> Weights:
    """The weights in memory: in `dtype` (None: it is not known), with this low-bit form.

    Low-bit forms are for the linear layers and experts; embedding, norms, biases and routers stay
    in the dtype; the output head is packed or not as the form says, and where it is the embedding
    it gets packed bytes of its own beside it.
    """
    parameters, source = _parameters(shape, stored)
    notes = list(stored.notes)
    if source == _BY_CONFIG and any(
        one.what == "the parts that see or hear" for one in shape.missing
    ):
        notes.append("weights: the parts that see or hear are not in it")
    form = shape.stored_form or (_SOME_FORM if stored.packed else None)
    if form is not None:
        size, why = _packed(form, stored, parameters, dtype, weight_only)
        return Weights(size, parameters, (*notes, why))
    if parameters is None:
        why = next(
            (one.why for one in shape.missing if one.what == "the number of parameters"),
            "neither weights nor a config are here to count parameters from",
        )
        return Weights(None, None, (*notes, f"weights unknown: {why}"))
    if dtype is None:
        return Weights(None, parameters, (*notes, "weights unknown: their dtype is not told"))
    each = DTYPE_BYTES[dtype]
    if weight_only == "none":
        note = f"weights: {parameters.total:,} parameters {source} x {each} bytes ({dtype})"
        return Weights(parameters.total * each, parameters, (*notes, note))
    low_bit = FORMS.get(weight_only)
    if parameters.embedding == 0:
        why = "which parameters are the embedding, that stays as it is, is not told"
        return Weights(None, parameters, (*notes, f"weights unknown: {why}"))
    if low_bit is None:
        why = f"how many bytes a parameter takes as {weight_only!r} is not known"
        return Weights(None, parameters, (*notes, f"weights unknown: {why}"))
    low = parameters.linear + parameters.experts
    high = parameters.embedding + parameters.kept
    if low_bit.head:
        low += parameters.head or (parameters.embedding if shape.tied else 0)
    else:
        high += parameters.head
    note = (
        f"weights: {low:,} parameters {source} x {low_bit.bytes_per_parameter:.2f} bytes "
        f"({weight_only}) + {high:,} x {each} ({dtype}: embedding, norms"
        f"{'' if low_bit.head else ', output head'})"
    )
    notes.append(note)
    if weight_only in _PACKED_WHEN_LOADED:
        peak = parameters.total * each
        notes.append(f"while it loads the worker holds them as {dtype}: {peak:,} bytes")
    return Weights(low_bit.bytes_of(low) + high * each, parameters, tuple(notes))


def _parameters(shape: ModelShape, stored: StoredWeights) -> tuple[Parameters | None, str]:
    """The best count there is, and where it comes from."""
    told = shape.parameters
    if stored.parameters is not None:
        counted = stored.parameters
        if shape.tied and counted.head == counted.embedding:
            counted = replace(counted, head=0)  # stored twice, loaded once
        share = told.active_share if told else _active_share(shape)
        return replace(counted, active_share=share), "in the files"
    each = plain_dtype(stored.dtype or shape.dtype)
    if stored.size_bytes is not None and each and not (shape.stored_form or stored.packed):
        return _split(shape, stored.size_bytes // DTYPE_BYTES[each]), f"(stored as {each})"
    return told, _BY_CONFIG


def _active_share(shape: ModelShape) -> float:
    return shape.mixture.per_token / shape.mixture.experts if shape.mixture else 1.0


def _split(shape: ModelShape, total: int) -> Parameters | None:
    """A total from the files' size, in parts as the config has them."""
    told = shape.parameters
    if told is not None and abs(told.total - total) * 100 <= total:
        return replace(told, linear=max(0, told.linear + total - told.total))
    embedding = min(total, (shape.vocabulary or 0) * (shape.hidden or 0))
    head = 0 if shape.tied else min(embedding, total - embedding)
    return Parameters(embedding, head, total - embedding - head, active_share=_active_share(shape))


def _packed(
    form: StoredForm,
    stored: StoredWeights,
    parameters: Parameters | None,
    dtype: str | None,
    weight_only: str,
) -> tuple[int | None, str]:
    """Of weights that are low-bit already."""
    if weight_only != "none" and not same_form(form, weight_only):
        why = f"the files are {form} already, and {weight_only!r} is made from plain weights"
        return None, f"weights unknown: {why}"
    if stored.size_bytes is not None:
        return stored.size_bytes, f"weights: as they are stored ({form})"
    if form.form is None:
        return None, f"weights unknown: {form} does not tell its bits"
    if parameters is None or dtype is None:
        return None, "weights unknown: neither files nor a count of parameters"
    low = parameters.experts + (0 if form.experts_only else parameters.linear)
    high = parameters.total - low
    note = (
        f"weights: {low:,} parameters by the config x {form.form.bytes_per_parameter:.2f} bytes "
        f"({form}) + {high:,} x {DTYPE_BYTES[dtype]} ({dtype})"
    )
    return form.form.bytes_of(low) + high * DTYPE_BYTES[dtype], note
