"""Weights that are low-bit: in which forms engines make them, and how files say they are."""

import re
from dataclasses import dataclass

from engine.core.model.config import Config

DTYPE_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
_SHORT = {"half": "float16", "fp16": "float16", "bf16": "bfloat16", "float": "float32"}
_FLOAT8 = ("fp8", "float8_e4m3fn", "float8_e5m2", "fp8_e4m3", "fp8_e5m2", "fp8_inc")


@dataclass(frozen=True, slots=True)
class Form:
    """A low-bit form of linear weights: `block_bytes` hold `block` of them, scales included."""

    block_bytes: int
    block: int
    head: bool = True
    """Whether the output head is packed too; the embedding, norms and routers never are."""

    def bytes_of(self, parameters: int) -> int:
        return -(-parameters * self.block_bytes // self.block)

    @property
    def bytes_per_parameter(self) -> float:
        return self.block_bytes / self.block


_BYTE = Form(1, 1)
_NIBBLES = Form(18, 32)

FORMS = {
    # Our worker: one scale an output channel (under 0.1 %), a tied head gets bytes of its own, and
    # experts are packed however transformers keeps them.
    "int8": _BYTE,
    "woq_int8": _BYTE,
    # Groups of 32 with a two-byte scale, as in Q4_0, or of 64 with one of four bytes, as our
    # worker has IPEX pack them: 0.56 bytes; wider groups take less.
    "int4": _NIBBLES,
    "woq_int4": _NIBBLES,
    # ipex-llm: ggml's blocks, and the output head packed as well (low_bit_linear.py, convert.py).
    "sym_int4": _NIBBLES,
    "nf4": _NIBBLES,
    "fp4": _NIBBLES,
    "asym_int4": Form(20, 32),
    "sym_int5": Form(22, 32),
    "asym_int5": Form(24, 32),
    "fp6": Form(26, 32),
    "sym_int8": Form(34, 32),
    # vLLM packs linear layers alone: ParallelLMHead stays in the dtype (its fp8.py, mxfp4.py).
    # ipex-llm's fp8 packs the head too and so takes a little less.
    "fp8": Form(1, 1, head=False),
    "fp8_e4m3": Form(1, 1, head=False),
    "fp8_e5m2": Form(1, 1, head=False),
    # OCP MX: a shared eight-bit exponent for 32 values.
    "mxfp4": Form(17, 32, head=False),
    "mxfp8": Form(33, 32, head=False),
    # llama.cpp's blocks (ggml-common.h).
    "q4_0": _NIBBLES,
    "q4_1": Form(20, 32),
    "q5_0": Form(22, 32),
    "q5_1": Form(24, 32),
    "q8_0": Form(34, 32),
    "q2_k": Form(84, 256),
    "q3_k": Form(110, 256),
    "q4_k": Form(144, 256),
    "q4_k_m": Form(144, 256),
    "q5_k": Form(176, 256),
    "q6_k": Form(210, 256),
}
"""Bytes for one parameter, by the name in a layout's `weight_only`."""


@dataclass(frozen=True, slots=True)
class StoredForm:
    """How a checkpoint's own weights are packed."""

    method: str
    bits: int | None
    form: Form | None
    """None when its bits are not told."""
    experts_only: bool = False

    def __str__(self) -> str:
        return f"{self.method}, {self.bits} bits" if self.bits else self.method


def plain_dtype(name: str | None) -> str | None:
    """One name for each floating type; None for one that weights cannot be widened from."""
    if name is None:
        return None
    name = name.removeprefix("torch.").lower()
    name = _SHORT.get(name, name)
    return name if name in DTYPE_BYTES else None


def cache_bytes(kv_dtype: str, dtype_bytes: int | None) -> int | None:
    """Bytes of one cached value: `auto` is the model's own dtype."""
    if kv_dtype == "auto":
        return dtype_bytes
    if kv_dtype in _FLOAT8:
        return 1
    named = plain_dtype(kv_dtype)
    return DTYPE_BYTES[named] if named else None


def same_form(stored: StoredForm, weight_only: str) -> bool:
    """Whether a wish for this form is what the files already are."""
    family = stored.method.replace("compressed-tensors", "").strip("-")
    return weight_only in (family, stored.method) or (
        weight_only.startswith("fp8") and stored.method == "fp8"
    )


def read_stored_form(config: Config) -> StoredForm | None:
    """From `quantization_config`; None when there is none."""
    told = config.part("quantization_config", "compression_config")
    if told is None:
        return None
    method = told.text("quant_method", "quant_type", "quant_algo") or "a form that is not named"
    method = method.lower()
    if method == "mxfp4":
        return StoredForm(method, 4, FORMS["mxfp4"], experts_only=True)
    bits = _bits(told, method)
    group = told.number("group_size", "weight_block_size") or 128
    form = None
    if bits is not None and bits >= 8:
        form = Form(bits // 8, 1, head=False)
    elif bits is not None:
        # A two-byte scale and a zero point of the weights' own width for each group.
        form = Form(group * bits + 16 + bits, group * 8, head=False)
    return StoredForm(method, bits, form)


def _bits(told: Config, method: str) -> int | None:
    if told.flag("load_in_4bit"):
        return 4
    if told.flag("load_in_8bit"):
        return 8
    bits = told.number("bits", "w_bit", "nbits", "weight_bits")
    groups = told.part("config_groups")
    if bits is None and groups is not None:
        for name in groups.values:
            part = groups.part(name)
            weights = part.part("weights") if part else None
            bits = bits or (weights.number("num_bits") if weights else None)
    if bits is None:
        # fp8, fbgemm_fp8, NVFP4 and the like carry their width in their name.
        found = re.search(
            r"(?:fp|int|w)(4|6|8|16)", f"{method} {told.text('quant_algo') or ''}".lower()
        )
        bits = int(found[1]) if found else None
    return bits if bits is not None and bits <= 16 else None
