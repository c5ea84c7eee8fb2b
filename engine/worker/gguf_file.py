"""Reads the GGUF files of small llama models: the metadata, and tensors as float32."""

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING, _ARRAY = 8, 9


class NotGguf(Exception):
    """The bytes are no GGUF file that this reader knows."""


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    """Outermost dimension first, as numpy and torch count; GGUF writes it the other way."""
    kind: int
    offset: int
    """From the start of the tensor data."""


class GgufFile:
    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._at = 0
        if self._bytes[:4] != b"GGUF":
            raise NotGguf(f"{path} does not start with the GGUF mark")
        self._at = 4
        version = self._scalar("<I")
        if version not in (2, 3):
            raise NotGguf(f"{path} has GGUF version {version}; versions 2 and 3 are known")
        tensors, keys = self._scalar("<Q"), self._scalar("<Q")
        self.metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = self._string()
            self.metadata[key] = self._value(self._scalar("<I"))
        self.tensors = {tensor.name: tensor for tensor in (self._tensor() for _ in range(tensors))}
        alignment = int(self.metadata.get("general.alignment", 32))
        self._data_at = -(-self._at // alignment) * alignment

    def floats(self, name: str) -> Floats:
        """The tensor, dequantised."""
        tensor = self.tensors[name]
        try:
            bytes_per_block, values_per_block, dequantise = _KINDS[tensor.kind]
        except KeyError:
            raise NotGguf(f"tensor {name} has the unknown type {tensor.kind}") from None
        count = int(np.prod(tensor.shape))
        blocks = count // values_per_block
        raw = np.frombuffer(
            self._bytes, np.uint8, blocks * bytes_per_block, self._data_at + tensor.offset
        )
        return dequantise(raw.reshape(blocks, bytes_per_block)).reshape(tensor.shape)

    def _scalar(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self._bytes, self._at)
        self._at += struct.calcsize(form)
        return value

    def _string(self) -> str:
        size = self._scalar("<Q")
        self._at += size
        return self._bytes[self._at - size : self._at].decode("utf-8")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            item_kind, count = self._scalar("<I"), self._scalar("<Q")
            return [self._value(item_kind) for _ in range(count)]
        return self._scalar(_SCALARS[kind])

    def _tensor(self) -> Tensor:
        name = self._string()
        shape = tuple(self._scalar("<Q") for _ in range(self._scalar("<I")))
        return Tensor(name, shape[::-1], self._scalar("<I"), self._scalar("<Q"))


def _f32(raw: npt.NDArray[np.uint8]) -> Floats:
    return np.ascontiguousarray(raw).view(np.float32)


def _f16(raw: npt.NDArray[np.uint8]) -> Floats:
    return np.ascontiguousarray(raw).view(np.float16).astype(np.float32)


def _q4_1(raw: npt.NDArray[np.uint8]) -> Floats:
    """32 values: a float16 scale, a float16 minimum, then nibbles (low halves come first)."""
    scale, least = _f16(raw[:, 0:2]), _f16(raw[:, 2:4])
    nibbles = np.concatenate([raw[:, 4:] & 0x0F, raw[:, 4:] >> 4], axis=1)
    return nibbles.astype(np.float32) * scale + least


def _q8_0(raw: npt.NDArray[np.uint8]) -> Floats:
    """32 values: a float16 scale, then signed bytes."""
    return np.ascontiguousarray(raw[:, 2:]).view(np.int8).astype(np.float32) * _f16(raw[:, 0:2])


_KINDS: dict[int, tuple[int, int, Callable[[npt.NDArray[np.uint8]], Floats]]] = {
    0: (4, 1, _f32),
    1: (2, 1, _f16),
    3: (20, 32, _q4_1),
    8: (34, 32, _q8_0),
}
"""GGUF type: bytes a block, values a block, how to read one."""
