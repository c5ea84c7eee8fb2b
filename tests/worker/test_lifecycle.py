"""How a worker starts, is left by clients, stops and refuses to start."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.worker.worker_process import (
    PROGRAM,
    Worker,
    free_port,
    launch,
    refused,
)

pytestmark = pytest.mark.torch

LONG = {"prompt": "Once upon a time", "max_tokens": 900, "ignore_eos": True}


def test_metrics_count_what_usage_says(worker: Worker) -> None:
    before = worker.metrics()
    usages = [worker.complete("The sun " * n, max_tokens=n + 1)["usage"] for n in (1, 5)]
    after = worker.metrics()

    def grown(name: str) -> float:
        return after[name] - before[name]

    prompt = sum(usage["prompt_tokens"] for usage in usages)
    generated = sum(usage["completion_tokens"] for usage in usages)
    assert grown("vllm:prompt_tokens_total") == prompt
    assert grown("vllm:generation_tokens_total") == generated
    assert grown("vllm:request_prompt_tokens_sum") == prompt
    assert grown("vllm:request_generation_tokens_sum") == generated
    assert grown("vllm:time_to_first_token_seconds_count") == 2
    assert grown("vllm:inter_token_latency_seconds_count") == generated - 2
    assert grown("vllm:e2e_request_latency_seconds_count") == 2
    assert after["vllm:num_requests_running"] == 0
    assert after["vllm:num_requests_waiting"] == 0
    assert after["vllm:kv_cache_usage_perc"] == 0
    assert after["slotdeck:weights_bytes"] > 500e6  # float32
    assert after["process_resident_memory_bytes"] > after["slotdeck:weights_bytes"]


def test_a_client_that_leaves_frees_its_place(worker: Worker) -> None:
    aborted = worker.metrics()["vllm:request_success_total/abort"]
    body = json.dumps({**LONG, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", worker.port), timeout=60) as sock:
        sock.sendall(head.encode() + body)
        assert sock.recv(1024)
        worker.wait_until("vllm:num_requests_running", 1)
        assert 0 < worker.metrics()["vllm:kv_cache_usage_perc"] < 1
    worker.wait_until("vllm:num_requests_running", 0)
    assert worker.metrics()["vllm:request_success_total/abort"] == aborted + 1
    assert worker.complete("The sun", max_tokens=2)["usage"]["completion_tokens"] == 2


def test_a_client_that_leaves_while_waiting_never_gets_a_place(worker: Worker) -> None:
    prompts = [[7, 8, 9]] * 6  # four places: two must wait
    body = json.dumps({**LONG, "prompt": prompts}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", worker.port), timeout=60) as sock:
        sock.sendall(head.encode() + body)
        worker.wait_until("vllm:num_requests_waiting", 2)
        assert worker.metrics()["vllm:num_requests_running"] == 4
    worker.wait_until("vllm:num_requests_running", 0)
    assert worker.metrics()["vllm:num_requests_waiting"] == 0


def test_a_busy_port_is_told_at_once(model: Path, worker: Worker) -> None:
    code, message = refused("--model", str(model), "--port", str(worker.port))
    assert code == 1
    assert message.count("\n") == 1
    assert f"port {worker.port}" in message
    assert "--port" in message


def test_a_missing_or_incomplete_model_is_told_clearly(model: Path, tmp_path: Path) -> None:
    code, message = refused("--model", str(tmp_path / "none"), "--port", "0")
    assert code == 2
    assert "it is not a directory" in message
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").symlink_to(model / "tokenizer.json")
    code, message = refused("--model", str(tmp_path), "--port", "0")
    assert code == 2
    assert "has no weights" in message
    assert message.count("\n") == 1


def test_weights_that_are_cut_off_are_told_clearly(model: Path, tmp_path: Path) -> None:
    for file in model.iterdir():
        if file.name != "model.safetensors":
            (tmp_path / file.name).symlink_to(file)
    with (model / "model.safetensors").open("rb") as weights:
        (tmp_path / "model.safetensors").write_bytes(weights.read(1_000_000))
    code, message = refused("--model", str(tmp_path), "--port", "0")
    assert code == 2
    assert "Cannot load the model" in message
    assert "Traceback" not in message


def test_ipex_that_does_not_import_is_told_clearly(model: Path) -> None:
    pytest.importorskip("torch")
    code, message = refused("--model", str(model), "--port", "0", "--engine", "ipex")
    assert code == 2
    assert "intel_extension_for_pytorch does not import" in message
    assert "Traceback" not in message


def test_a_key_is_wanted_and_a_stream_outlives_sigterm(start: Callable[..., Worker]) -> None:
    started = start("--max-model-len", "512", api_key="s3cret")
    key = {"Authorization": "Bearer s3cret"}
    # bfloat16 as in the file, and yet not the file's pages: those obey no memory policy.
    assert "model.safetensors" not in Path(f"/proc/{started.process.pid}/maps").read_text()
    assert started.get("/health")[0] == 200
    assert started.get("/v1/models")[0] == 401
    assert started.get("/v1/models", Authorization="Bearer wrong")[0] == 401
    assert started.get("/v1/models", **key)[0] == 200
    body = {**LONG, "max_tokens": 100, "stream": True}
    with started.connection() as connection:
        connection.request("POST", "/v1/completions", json.dumps(body), key)
        answer = connection.getresponse()
        first = answer.readline()
        assert first.startswith(b"data: ")
        started.process.send_signal(signal.SIGTERM)
        wait_for_stopping(started)
        status, refusal = started.post("/v1/completions", LONG, **key)
        assert status == 503
        assert refusal["error"]["code"] == "stopping"
        rest = answer.read()
    assert rest.count(b'"text"') == 99
    assert rest.endswith(b"data: [DONE]\n\n")
    _, log = started.process.communicate(timeout=60)
    assert started.process.returncode == 0
    assert "s3cret" not in log


def wait_for_stopping(started: Worker) -> None:
    deadline = time.monotonic() + 60
    while True:
        status, body = started.get("/health")
        if status == 503 and body["status"] == "stopping":
            return
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_stream_beyond_the_grace_ends_with_an_error(start: Callable[..., Worker]) -> None:
    started = start("--grace-s", "0.2")
    events = started.stream("/v1/completions", **{**LONG, "max_tokens": 8000})
    next(events)
    started.process.send_signal(signal.SIGTERM)
    last = list(events)[-1]
    assert "stopped before" in last["error"]["message"]
    started.process.communicate(timeout=60)  # no second SIGTERM: that one ends it at once
    assert started.process.returncode == 0


def test_it_stops_even_when_nobody_reads_its_log(start: Callable[..., Worker]) -> None:
    started = start("--max-model-len", "64")
    assert started.process.stderr is not None
    started.process.stderr.close()
    started.process.send_signal(signal.SIGTERM)
    assert started.process.wait(timeout=60) == 0


def test_health_says_loading_and_sigterm_ends_even_that(model: Path) -> None:
    port = free_port()
    process = launch("--model", str(model), "--port", str(port))
    loading = Worker(process, port, model.name)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert time.monotonic() < deadline
            try:
                status, body = loading.get("/health")
            except OSError:
                continue
            break
        assert (status, body["status"]) == (503, "loading")
        assert loading.post("/v1/completions", LONG)[0] == 503
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_the_command_line_is_checked(model: Path) -> None:
    for wrong in (["--port", "99999"], ["--dtype", "int3"], ["--max-num-seqs", "0"]):
        code, message = refused("--model", str(model), *wrong)
        assert code == 2
        assert wrong[0] in message
    code, message = refused("--model", str(model), "--port", "0", "--max-model-len", "9000")
    assert code == 2
    assert "8192" in message


def test_it_loads_without_slotdeck_in_sight(model: Path) -> None:
    """The engine's Python has its own packages: importing ours there must fail."""
    probe = (
        "import runpy, sys\n"
        "program, sys.argv = sys.argv[1], ['worker', '--help']\n"
        "try: runpy.run_path(program, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "found = [name for name in sys.modules if name.split('.')[0] in ('tui', 'msgspec')"
        " or name.startswith('engine.') and not name.startswith('engine.worker')]\n"
        "assert not found, found\n"
        "assert not any('torch' == name for name in sys.modules)\n"
    )
    command = [sys.executable, "-I", "-S", "-c", probe, str(PROGRAM)]
    subprocess.run(command, check=True, capture_output=True)
