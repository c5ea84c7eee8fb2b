"""The command line of a start is the one that its plan has shown."""

import json
import os
from pathlib import Path

from engine.core.layout import parse_layout
from engine.host.machine import read_machine
from engine.host.root import HostRoot
from engine.service.orders import Surroundings, order_of
from engine.service.planning import plan_layout

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 256,
    "max_position_embeddings": 512,
    "torch_dtype": "bfloat16",
}


def test_a_start_gets_what_its_plan_said_of_the_kv_cache(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(CONFIG))
    for name in ("python", "vllm"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    pu = max(os.sched_getaffinity(0))
    layout = parse_layout(
        'schema = 1\nname = "x"\n[[instance]]\nname = "a"\nengine = "vllm-cpu"\n'
        f'slot = "pu:{pu}"\n'
        f'python = "{tmp_path}/python"\nmodel = "model"\nweights = "dummy"\nreserve_cores = 0\n'
        "args = { max-model-len = 512, max-num-seqs = 2 }\n",
        name="x",
    )
    machine = read_machine(HostRoot())
    around = Surroundings({"PATH": os.defpath, "HOME": str(tmp_path)}, tmp_path)
    (planned,) = plan_layout(machine, layout, around, base=str(tmp_path)).planned
    assert planned.command.env["VLLM_CPU_KVCACHE_SPACE"].value == "1"
    started = order_of(planned.wish, planned.placement, machine, around, base=str(tmp_path))
    assert started.command == planned.command
