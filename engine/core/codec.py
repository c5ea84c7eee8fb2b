"""Our values as JSON and back: CPU sets as strings in kernel form, the rest as msgspec does."""

from typing import Any, TypeVar

import msgspec

from engine.core.cpuset import CpuSet

T = TypeVar("T")


def to_builtins(value: object) -> Any:
    """Dictionaries, lists, strings and numbers, ready for any JSON writer."""
    return msgspec.to_builtins(value, enc_hook=_encode)


def encode(value: object) -> bytes:
    """One line of JSON without its newline."""
    return msgspec.json.encode(value, enc_hook=_encode)


def decode(data: bytes, kind: type[T]) -> T:
    """Raises msgspec.DecodeError (ValidationError for a wrong shape)."""
    return msgspec.json.decode(data, type=kind, dec_hook=_decode)


def convert(value: object, kind: type[T]) -> T:
    """Builtins into one of our values; raises msgspec.ValidationError."""
    return msgspec.convert(value, kind, dec_hook=_decode)


def _encode(value: object) -> object:
    if isinstance(value, CpuSet):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")


def _decode(kind: type, value: object) -> object:
    if kind is CpuSet and isinstance(value, str):
        return CpuSet.parse(value)
    raise NotImplementedError(f"{kind.__name__} cannot be read from JSON")
