"""The weights in a model's directory: sizes, and what the headers of its safetensors files say."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from engine.core.model.tensors import BITS, StoredWeights, Tensor, weigh

INDEX = "model.safetensors.index.json"
LARGEST_HEADER = 32 << 20
"""The format allows 100 MB; a model of 160 files has some 100 KB in each."""
LARGEST_INDEX = 64 << 20
MOST_FILES = 4096
"""Of one model: an index or a directory may claim anything."""


class BadHeader(Exception):
    """A safetensors file whose beginning is not what the format says; the text says why."""


def read_weights(directory: Path) -> StoredWeights | None:
    """What the directory holds; None when it has no weights at all. Never raises."""
    try:
        names = sorted(path.name for path in directory.iterdir())
    except OSError as error:
        return StoredWeights(notes=(f"{directory} cannot be read: {error.strerror}",))
    if INDEX in names:
        return _by_index(directory)
    files = [name for name in names if name.endswith(".safetensors")]
    # Mistral's own copy of the same weights, and what is put on top of others.
    models = [one for one in files if not one.startswith(("consolidated", "adapter_model"))]
    if models or files:
        return _by_headers(directory, models or files)
    return _size_only(directory, names)


def _by_index(directory: Path) -> StoredWeights:
    try:
        index = _Index.read(directory / INDEX)
    except BadHeader as error:
        note = f"{INDEX} cannot be used: {error}"
        found = sorted(path.name for path in directory.glob("*.safetensors"))
        return _by_headers(directory, found, notes=(note,))
    here = [name for name in index.files if (directory / name).is_file()]
    absent = len(index.files) - len(here)
    if absent:
        note = f"{absent} of {len(index.files)} files that the index lists are not here"
        return weigh((), size_bytes=index.total_size, complete=False, notes=(note,))
    return _by_headers(directory, here, listed=index.tensors)


def _by_headers(
    directory: Path,
    names: list[str],
    *,
    listed: frozenset[str] = frozenset(),
    notes: tuple[str, ...] = (),
) -> StoredWeights:
    size, problems = 0, list(notes)
    tensors: dict[str, Tensor] = {}
    for name in names[:MOST_FILES]:
        try:
            length, header = read_header(directory / name)
        except BadHeader as error:
            size += _length(directory / name)
            problems.append(f"{name} cannot be used: {error}")
            continue
        size += length
        twice = next((one.name for one in header if one.name in tensors), None)
        if twice is not None:
            problems.append(f"{name} holds {twice} a second time")
        tensors.update((tensor.name, tensor) for tensor in header)
    if not problems and (lacking := listed - tensors.keys()):
        problems.append(f"{len(lacking):,} tensors that the index lists are in no file")
    if len(names) > MOST_FILES:
        problems.append(f"only {MOST_FILES:,} of {len(names):,} files were read")
    return weigh(tensors.values(), size_bytes=size or None, complete=not problems, notes=problems)


def _size_only(directory: Path, names: list[str]) -> StoredWeights | None:
    ggufs = [name for name in names if name.endswith(".gguf")]
    if ggufs:
        if len({_PART.sub("", name) for name in ggufs}) > 1:
            note = f"{len(ggufs)} GGUF files are here: which of them is the model is not told"
            return StoredWeights(packed=True, notes=(note,))
        return _sum(directory, ggufs, "GGUF", packed=True)
    # training_args.bin and the like hold no weights.
    pickles = [name for name in names if name.endswith(".bin") and "model" in name]
    return _sum(directory, pickles, "PyTorch", packed=False) if pickles else None


_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


def _sum(directory: Path, names: list[str], kind: str, *, packed: bool) -> StoredWeights | None:
    size = sum(_length(directory / name) for name in names)
    note = f"{len(names)} {kind} file{'s' if len(names) > 1 else ''}: only the size is known"
    return StoredWeights(size_bytes=size, packed=packed, notes=(note,)) if size else None


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def read_header(path: Path) -> tuple[int, list[Tensor]]:
    """The file's size and its tensors, with every claim checked against the size.

    Eight bytes of length, so many of JSON, then the tensors' bytes. Raises BadHeader.
    """
    try:
        if not path.is_file() and not path.is_dir():
            path.stat()
            raise BadHeader("it is no plain file")  # opening a pipe would wait
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise BadHeader(f"{size:,} bytes end before its header does")
            if length > LARGEST_HEADER:
                raise BadHeader(f"a header of {length:,} bytes is not believable")
            header = _json(file.read(length))
    except OSError as error:
        raise BadHeader(error.strerror or str(error)) from None
    header.pop("__metadata__", None)
    room = size - 8 - length
    return size, [_tensor(name, told, room) for name, told in header.items()]


def _tensor(name: str, told: object, room: int) -> Tensor:
    match told:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise BadHeader(f"{name} has no dtype, shape and offsets")
    if not all(type(one) is int and one >= 0 for one in shape):
        raise BadHeader(f"the shape of {name} is not made of numbers")
    if not 0 <= begin <= end <= room:
        raise BadHeader(f"{name} lies outside the file")
    tensor = Tensor(name, dtype, tuple(shape))
    bits = BITS.get(dtype)
    if bits is not None and -(-tensor.elements * bits // 8) != end - begin:
        raise BadHeader(
            f"{name} is said to be {dtype} {shape}, which is not {end - begin:,} bytes"
        )
    return tensor


def _json(raw: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(raw)
    except (ValueError, RecursionError) as error:
        raise BadHeader(f"it is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise BadHeader("it is not an object")
    return value


@dataclass(frozen=True, slots=True)
class _Index:
    """Which tensor lies in which file."""

    total_size: int | None
    files: list[str]
    tensors: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> "_Index":
        if not path.is_file():
            raise BadHeader("it is no plain file")
        if _length(path) > LARGEST_INDEX:
            raise BadHeader(f"{_length(path):,} bytes are not believable")
        try:
            told = _json(path.read_bytes())
        except OSError as error:
            raise BadHeader(error.strerror or str(error)) from None
        where = told.get("weight_map")
        if not isinstance(where, dict) or not where:
            raise BadHeader("it has no weight_map")
        files = sorted({name for name in where.values() if isinstance(name, str)})
        if not files or any(Path(name).name != name for name in files):
            raise BadHeader("its files are not names in the same directory")
        metadata = told.get("metadata")
        total = metadata.get("total_size") if isinstance(metadata, dict) else None
        if isinstance(total, float) and total.is_integer():
            total = int(total)  # some tools write 1.6e10
        known = type(total) is int and total > 0
        return cls(total if known else None, files, frozenset(where))
