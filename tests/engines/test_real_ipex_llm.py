"""ipex-llm: its own parsers on our command lines, and a server that is healthy but dead."""

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from engine.core.layout import Instance
from engine.core.status import State
from engine.drivers.driver import Order
from engine.drivers.ipex_llm import IpexLlmDriver
from tests.drivers.orders import A770, order
from tests.engines.real import PUS, WITHIN_S, installed_python, layout_of, slotdeck, take_down
from tests.processes import Home

_PARSE = """
import ast, json, sys
from pathlib import Path
import ipex_llm
from vllm.entrypoints.openai.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.logger import init_logger
from vllm.utils import FlexibleArgumentParser
logger = init_logger("test")
device, *sys.argv[1:] = sys.argv[1:]
file = Path(ipex_llm.__file__).parent / f"vllm/{device}/entrypoints/openai/api_server.py"
main = ast.parse(file.read_text()).body[-1].body[:-1]  # all but the line that starts the server
exec(compile(ast.Module(main, []), str(file), "exec"))
print(json.dumps({name: str(value) for name, value in vars(args).items()}))
"""
"""What stands under the servers' `if __name__ == "__main__"`, up to where they would start: the
one for XPUs does not even import without a patched vLLM."""


def parsed(device: str, words: tuple[str, ...]) -> dict[str, Any]:
    python = installed_python("ipex-llm")
    done = subprocess.run(
        [str(python), "-c", _PARSE, device, *words],
        env={"PATH": f"{python.parent}:{os.defpath}", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def wish(**keys: Any) -> Instance:
    return Instance(name="a", engine="ipex-llm", model="m", **keys)


@pytest.mark.parametrize(
    ("device", "one", "told"),
    [
        (
            "cpu",
            order(wish(weight_only="sym_int4", args={"max-model-len": 512, "max_num_seqs": 2})),
            {"load_in_low_bit": "sym_int4", "dtype": "bfloat16", "max_num_seqs": "2"},
        ),
        (
            "xpu",
            order(
                wish(
                    weight_only="fp8",
                    trust_remote_code=True,
                    args={
                        "block-size": 8,
                        "pipeline-parallel-size": 1,
                        "distributed-executor-backend": "ray",
                        "disable-async-output-proc": True,
                        "max-num-batched-tokens": 3000,
                    },
                ),
                cards=(A770, A770),
            ),
            {"load_in_low_bit": "fp8", "dtype": "float16", "tensor_parallel_size": "2"},
        ),
    ],
    ids=["cpu", "xpu"],
)
def test_its_own_parser_takes_our_command_line(
    home: Home, device: str, one: Order, told: dict[str, str]
) -> None:
    argv = IpexLlmDriver().command(one).argv
    assert argv[1:3] == ("-m", f"ipex_llm.vllm.{device}.entrypoints.openai.api_server")
    found = parsed(device, argv[3:])
    expected = {"device": device, "host": "127.0.0.1", "port": "8002", "model": "/models/m"}
    assert found.items() >= {**expected, "served_model_name": "['served']", **told}.items()


async def test_a_healthy_server_that_cannot_answer_is_never_ready(home: Home) -> None:
    """With FP8 on CPUs it loads, /health answers 200, and the first request kills the engine."""
    file, ports = layout_of(
        *(home, "ipex-llm", PUS[-1:]), restart="on-failure", args=', load-in-low-bit = "fp8"'
    )
    plan = slotdeck(home, "plan", str(file))
    assert plan.returncode == 0, plan.stderr
    assert "will never be ready" in " ".join(plan.stdout.split())

    assert slotdeck(home, "up", str(file), "--timeout", "0").returncode == 4
    client = await home.connect(start=False)
    async with asyncio.timeout(WITHIN_S):
        async for snapshot in client.snapshots():
            (one,) = snapshot.instances
            if one.state in (State.BACKOFF, State.FAILED):
                break
    assert one.state is State.BACKOFF
    assert "on CPUs it cannot compute with FP8, FP4, NF4 or NF3 weights" in one.why
    assert 'weight_only = "sym_int4"' in one.why
    happened = [happening.text for happening in snapshot.happenings]
    sys.stderr.write("\n".join(happened) + "\n")
    assert any(text.startswith("i0: starting") for text in happened)
    assert not any(text.startswith("i0: ready") for text in happened)

    log = slotdeck(home, "logs", "i0").stdout
    assert '"GET /health HTTP/1.1" 200' in log
    assert "RuntimeError: NF3, NF4, FP4 and FP8 quantization are currently not supported" in log
    take_down(home, [], ports)
