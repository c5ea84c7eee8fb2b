"""The worker's weights lie where it is bound, though another NUMA node read their file first.

A guest with torch and the worker's own loader: about three minutes, most of them imports.
"""

import json
import shutil
from pathlib import Path

import torch
import transformers

from tests.bundled_model import bundled_model
from tests.numa.booted import PYTHON, ROOT, booted
from tests.numa.guest import Shape

PAGE_BYTES = 4096


def a_model(folder: Path) -> None:
    """50 MB of weights that may be any numbers, with the bundled model's words."""
    config = transformers.LlamaConfig(
        vocab_size=49152,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled_model() / name, folder)


def test_weights_cached_on_another_node_are_loaded_to_the_bound_one(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    a_model(disk)
    booted(
        Shape(node_mib=1200, cards=()),
        f"taskset -c 0 md5sum /mnt/model.safetensors && cd {ROOT} && "
        f"numactl -C 2 -m 1 env {PYTHON} -m tests.numa.loading /mnt {tmp_path}/told.json",
        work=tmp_path,
        within_s=1200,
        disk=disk,
    )
    told = json.loads((tmp_path / "told.json").read_text())
    assert "bind:1" in told["policies"]
    assert told["path"] == "lean"
    assert set(told["own"]) == {"1"}
    assert told["own"]["1"] * PAGE_BYTES > told["weights_bytes"] > 49152 * 256 * 2 * 2
    assert told["mapped"] == []
