"""Weights on a disk: what their headers say, and what torn or lying ones are told to be."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.sizing import size
from engine.host.models import find_model
from engine.host.safetensors_files import BadHeader, read_header, read_weights
from tests.core.model_configs import SMOLLM2_135M

Tensors = dict[str, tuple[str, list[int]]]
WIDTH = {"BF16": 2, "F32": 4, "F8_E4M3": 1, "I32": 4, "F4": 0.5, "X9": 3}


def file_of(path: Path, tensors: Tensors, *, claims: dict[str, Any] | None = None) -> int:
    """Writes a safetensors file; says how many bytes its tensors are."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        count = 1
        for one in shape:
            count *= one
        begin, end = end, end + int(count * WIDTH[dtype])
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    raw = json.dumps(header | (claims or {})).encode()
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + end)
    return end


FIRST: Tensors = {
    "model.embed_tokens.weight": ("BF16", [512, 64]),
    "model.layers.0.self_attn.q_proj.weight": ("BF16", [64, 64]),
}
SECOND: Tensors = {
    "model.norm.weight": ("F32", [64]),
    "lm_head.weight": ("BF16", [512, 64]),
}


def sharded(folder: Path, **changes: Any) -> int:
    """Two files and their index."""
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    total = file_of(folder / first, FIRST) + file_of(folder / second, SECOND)
    index: dict[str, Any] = {
        "metadata": {"total_size": total},
        "weight_map": {**dict.fromkeys(FIRST, first), **dict.fromkeys(SECOND, second)},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index | changes))
    return total


def test_one_file(tmp_path: Path) -> None:
    file_of(tmp_path / "model.safetensors", FIRST | SECOND)
    weights = read_weights(tmp_path)
    assert weights is not None
    assert weights.parameters is not None
    assert (weights.parameters.embedding, weights.parameters.head) == (32768, 32768)
    assert (weights.parameters.linear, weights.parameters.kept) == (4096, 64)
    assert weights.by_dtype == (("BF16", 69632), ("F32", 64))
    assert weights.size_bytes == (tmp_path / "model.safetensors").stat().st_size
    assert weights.notes == ()


def test_several_files_and_their_index(tmp_path: Path) -> None:
    sharded(tmp_path)
    # The same weights once more, as Mistral publishes them, belong to another loader.
    file_of(tmp_path / "consolidated.safetensors", FIRST | SECOND)
    weights = read_weights(tmp_path)
    assert weights is not None
    assert weights.parameters is not None
    assert weights.parameters.total == 69632 + 64
    assert weights.notes == ()


def test_files_that_are_only_listed(tmp_path: Path) -> None:
    total = sharded(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    weights = read_weights(tmp_path)
    assert weights is not None
    assert (weights.size_bytes, weights.parameters) == (total, None)
    assert weights.notes == ("1 of 2 files that the index lists are not here",)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"weight_map": {}}, "it has no weight_map"),
        ({"weight_map": ["a"]}, "it has no weight_map"),
        ({"weight_map": {"a": 3}}, "its files are not names in the same directory"),
        ({"weight_map": {"a": "../x.safetensors"}}, "its files are not names in the same"),
        ({"weight_map": {"a": "/etc/passwd"}}, "its files are not names in the same"),
    ],
)
def test_an_index_that_is_none(tmp_path: Path, changes: Any, note: str) -> None:
    total = sharded(tmp_path, **changes)
    weights = read_weights(tmp_path)
    assert weights is not None
    assert note in weights.notes[0]
    assert weights.size_bytes is not None
    assert weights.size_bytes > total
    assert weights.parameters is None


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\0", "null"])
def test_an_index_that_is_no_json(tmp_path: Path, text: str) -> None:
    sharded(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(text)
    weights = read_weights(tmp_path)
    assert weights is not None
    assert "model.safetensors.index.json cannot be used" in weights.notes[0]


def test_an_index_that_lists_more_than_the_files_hold(tmp_path: Path) -> None:
    sharded(tmp_path)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.layers.9.x"] = "model-00001-of-00002.safetensors"
    index["metadata"]["total_size"] = 1.6e10
    path.write_text(json.dumps(index))
    weights = read_weights(tmp_path)
    assert weights is not None
    assert weights.notes == ("1 tensors that the index lists are in no file",)
    assert weights.parameters is None


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        file_of(tmp_path / name, FIRST)
    weights = read_weights(tmp_path)
    assert weights is not None
    assert weights.notes == ("b.safetensors holds model.embed_tokens.weight a second time",)
    assert weights.parameters is None


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        ({"dtype": "BF16", "shape": [9, 9], "data_offsets": [0, 8]}, "which is not 8 bytes"),
        ({"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 10**9]}, "lies outside the file"),
        ({"dtype": "BF16", "shape": [2, 2], "data_offsets": [8, 0]}, "lies outside the file"),
        ({"dtype": "BF16", "shape": [2, 2], "data_offsets": [-8, 0]}, "lies outside the file"),
        ({"dtype": "BF16", "shape": [-2, -2], "data_offsets": [0, 8]}, "not made of numbers"),
        ({"dtype": "BF16", "shape": [True], "data_offsets": [0, 2]}, "not made of numbers"),
        ({"dtype": "BF16", "shape": "2x2", "data_offsets": [0, 8]}, "has no dtype, shape"),
        ({"dtype": 5, "shape": [2], "data_offsets": [0, 4]}, "has no dtype, shape"),
        ({"dtype": "BF16", "shape": [2]}, "has no dtype, shape"),
        ({"dtype": "BF16", "shape": [2], "data_offsets": [0]}, "has no dtype, shape"),
        ([], "has no dtype, shape"),
        (None, "has no dtype, shape"),
    ],
)
def test_a_header_that_lies(tmp_path: Path, claim: object, why: str) -> None:
    file_of(tmp_path / "model.safetensors", FIRST, claims={"liar": claim})
    with pytest.raises(BadHeader, match="liar") as caught:
        read_header(tmp_path / "model.safetensors")
    assert why in str(caught.value)
    weights = read_weights(tmp_path)
    assert weights is not None
    assert weights.size_bytes == (tmp_path / "model.safetensors").stat().st_size
    assert weights.parameters is None
    assert why in weights.notes[0]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "0 bytes end before its header does"),
        (b"\x04\0\0\0", "4 bytes end before its header does"),
        (b"\xff" * 16, "16 bytes end before its header does"),
        (b"\x02\0\0\0\0\0\0\0{", "9 bytes end before its header does"),
        (b"\x02\0\0\0\0\0\0\0[]", "it is not an object"),
        (b"\x02\0\0\0\0\0\0\0\xff\xfe", "it is not JSON"),
        (b"\xa0\x86\x01\0\0\0\0\0" + b"[" * 100_000, "it is not JSON"),
        (b"\0\0\0\0\0\0\0\0", "it is not JSON"),
    ],
)
def test_a_torn_header(tmp_path: Path, raw: bytes, why: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw)
    with pytest.raises(BadHeader, match=why):
        read_header(path)


def test_a_header_of_impossible_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write((1 << 30).to_bytes(8, "little"))
        file.truncate(1 << 31)  # sparse: nothing is on the disk
    with pytest.raises(BadHeader, match="a header of 1,073,741,824 bytes is not believable"):
        read_header(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(BadHeader, match="Is a directory"):
        read_header(tmp_path / "model.safetensors")
    with pytest.raises(BadHeader, match="No such file"):
        read_header(tmp_path / "none")
    weights = read_weights(tmp_path / "none")
    assert weights is not None
    assert "cannot be read: No such file" in weights.notes[0]
    pipe = tmp_path / "pipe"
    pipe.mkdir()
    os.mkfifo(pipe / "model.safetensors")
    waited = read_weights(pipe)
    assert waited is not None
    assert "it is no plain file" in waited.notes[0]


@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.binary(max_size=40), st.integers(0, 300))
def test_no_bytes_raise(tmp_path: Path, raw: bytes, at: int) -> None:
    path = tmp_path / "model.safetensors"
    file_of(path, FIRST)
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + raw + whole[at + len(raw) :])
    assert read_weights(tmp_path) is not None


def test_half_bytes_and_dtypes_of_tomorrow(tmp_path: Path) -> None:
    tensors: Tensors = {**FIRST, "x.weight": ("F4", [64, 64]), "y.weight": ("X9", [2, 2])}
    file_of(tmp_path / "model.safetensors", tensors)
    weights = read_weights(tmp_path)
    assert weights is not None
    assert weights.notes == ()
    assert weights.packed
    assert weights.parameters is None


@pytest.mark.parametrize(
    ("files", "size_bytes", "packed", "note"),
    [
        ({"m.Q4_K_M.gguf": 7}, 7, True, "1 GGUF file: only the size is known"),
        (
            {"m-00001-of-00002.gguf": 7, "m-00002-of-00002.gguf": 5},
            12,
            True,
            "2 GGUF files: only the size is known",
        ),
        (
            {"m.Q4_K_M.gguf": 7, "m.Q8_0.gguf": 9},
            None,
            True,
            "2 GGUF files are here: which of them is the model is not told",
        ),
        (
            {"pytorch_model-00001-of-00001.bin": 9, "training_args.bin": 4},
            9,
            False,
            "1 PyTorch file: only the size is known",
        ),
    ],
)
def test_weights_in_other_files(
    tmp_path: Path, files: dict[str, int], size_bytes: int | None, packed: bool, note: str
) -> None:
    for name, length in files.items():
        (tmp_path / name).write_bytes(b"x" * length)
    weights = read_weights(tmp_path)
    assert weights is not None
    assert (weights.size_bytes, weights.packed) == (size_bytes, packed)
    assert weights.notes == (note,)


def test_no_weights(tmp_path: Path) -> None:
    assert read_weights(tmp_path) is None
    (tmp_path / "training_args.bin").write_bytes(b"x")
    assert read_weights(tmp_path) is None


def test_a_model_is_sized_from_its_files(tmp_path: Path) -> None:
    config = {**SMOLLM2_135M, "hidden_size": 64, "vocab_size": 512, "tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    file_of(tmp_path / "model.safetensors", FIRST | SECOND)
    model = find_model(str(tmp_path), base=Path("/"), bundled=Path("/"))
    needs = size(model.config, model.stored)
    assert needs.weights_bytes == 2 * (69632 + 64)
    assert "69,696 parameters in the files" in needs.notes[0]
    int8 = size(model.config, model.stored, weight_only="int8").weights_bytes
    assert int8 == 4096 + 32768 + 2 * (32768 + 64)
