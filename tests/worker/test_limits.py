"""What a worker reuses, what it refuses, and how it runs without weights or tokenizer."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.worker.worker_process import Worker, free_port, launch, refused, start_worker

pytestmark = pytest.mark.torch

TEXT = "/v1/completions"
LONG = {"prompt": [7, 8, 9], "max_tokens": 40, "temperature": 0, "ignore_eos": True}


def test_a_common_beginning_is_computed_once(worker: Worker) -> None:
    story = "It was a dark and stormy night; the rain fell in torrents, except at intervals. " * 6
    before = worker.metrics()
    first = worker.complete(story + "Then", max_tokens=8)
    again = worker.complete(story + "Then", max_tokens=8)
    other = worker.complete(story + "But she", max_tokens=8)
    after = worker.metrics()
    assert first["choices"][0]["text"] == again["choices"][0]["text"]
    cached = [one["usage"]["prompt_tokens_details"]["cached_tokens"] for one in (again, other)]
    length = first["usage"]["prompt_tokens"]
    assert cached == [length - 1, length - 1]
    hits = "vllm:prefix_cache_hits_total"
    assert after[hits] - before[hits] == sum(cached)
    queries = "vllm:prefix_cache_queries_total"
    asked = sum(one["usage"]["prompt_tokens"] for one in (first, again, other))
    assert after[queries] - before[queries] == asked
    prompts = "vllm:prompt_tokens_total"
    assert after[prompts] - before[prompts] == asked


def test_a_running_sequence_shares_its_beginning(worker: Worker) -> None:
    prompts = [[5] * 40 + [one] for one in (11, 12, 13, 14)]
    singles = [worker.complete(prompt, max_tokens=6)["choices"][0]["text"] for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda one: worker.complete(one, max_tokens=6), prompts))
    assert [one["choices"][0]["text"] for one in together] == singles


def test_how_it_runs_can_be_asked(worker: Worker) -> None:
    (model,) = worker.get("/v1/models")[1]["data"]
    assert model["execution"] == {"path": "lean", "why": ""}
    assert model["load_format"] == "auto"


def test_a_full_queue_says_when_to_come_back(start: Callable[..., Worker]) -> None:
    started = start(*("--max-num-seqs", "1", "--max-waiting", "1", "--max-model-len", "1024"))
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(started.post, TEXT, LONG) for _ in range(2)]
        started.wait_until("vllm:num_requests_waiting", 1)
        with started.connection() as connection:
            connection.request("POST", TEXT, json.dumps(LONG))
            answer = connection.getresponse()
            error = json.loads(answer.read())["error"]
        assert answer.status == 503
        assert error["code"] == "queue_full"
        assert 1 <= int(answer.getheader("retry-after") or 0) <= 60
        assert started.metrics()["slotdeck:refused_total"] == 1
        assert [one.result()[0] for one in waiting] == [200, 200]
    status, _ = started.post(TEXT, {**LONG, "prompt": [[1], [2], [3]]})
    assert status == 503  # more at once than one place and one seat


def test_a_context_that_memory_cannot_hold_is_refused(model: Path) -> None:
    code, message = refused(
        *("--model", str(model), "--port", "0", "--kv-cache-memory-bytes", "10000000")
    )
    assert code == 2
    assert "a context of 8192 tokens" in message
    assert "--max-model-len 434 or less" in message


def test_little_memory_makes_others_wait_not_fail(start: Callable[..., Worker]) -> None:
    """Room for one context of 32 tokens, although four have places."""
    started = start(
        *("--max-num-seqs", "4", "--max-model-len", "32", "--dtype", "float32"),
        *("--kv-cache-memory-bytes", str(32 * 46080)),
    )
    bodies = [{**LONG, "prompt": [one] * 10, "max_tokens": 20} for one in (5, 6, 7)]
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda body: started.post(TEXT, body), bodies))
    assert [status for status, _ in made] == [200, 200, 200]


def test_random_weights_need_a_config_only(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "config.json").symlink_to(model / "config.json")
    started = start_worker(folder, "--load-format", "dummy", "--max-model-len", "256")
    try:
        (shown,) = started.get("/v1/models")[1]["data"]
        assert shown["load_format"] == "dummy"
        fields = {"prompt": [5, 6, 7], "max_tokens": 5, "temperature": 0, "ignore_eos": True}
        status, made = started.post(TEXT, fields)
        assert status == 200
        assert made["usage"]["completion_tokens"] == 5
        assert made["choices"][0]["text"] == ""
        for path, wrong in (
            (TEXT, {"prompt": "text"}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ):
            status, refusal = started.post(path, wrong)
            assert status == 400
            assert "token ids" in refusal["error"]["message"]
    finally:
        started.process.terminate()
        _, log = started.process.communicate(timeout=60)
    assert "the weights are random" in log
    assert "there is no tokenizer" in log


def test_random_weights_are_the_same_each_time() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from engine.worker.dummy import dummy_module

    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, attention_bias=True, tie_word_embeddings=True,
    )  # fmt: skip
    one, other = (dummy_module(config).requires_grad_(False) for _ in range(2))
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name))
    assert float(one.model.norm.weight.min()) == 1.0
    assert float(one.model.layers[0].self_attn.q_proj.bias.abs().max()) == 0.0
    rows = one.model.embed_tokens.weight
    assert len(rows.unique(dim=0)) == 300
    tokens = torch.arange(5).unsqueeze(0)
    assert bool(torch.isfinite(one(input_ids=tokens).logits).all())
    assert float(torch.empty(10).normal_().std()) > 0  # filling works again


def test_it_measures_itself_without_a_port(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    process = launch(
        *("--model", str(model), "--port", str(free_port()), "--weight-only", "int8"),
        *("--threads", "1", "--max-model-len", "64", "--offline", str(out)),
        *("--batch-size", "1,2", "--num-iter", "3", "--num-warmup", "1"),
        *("--input-len", "8", "--output-len", "4"),
    )
    _, log = process.communicate(timeout=120)
    assert process.returncode == 0, log
    found = json.loads(out.read_text())
    assert found["engine"]["path"] == "lean"
    assert found["engine"]["threads"] == 1
    assert "," not in found["engine"]["affinity"]
    for batch, size in zip(found["batches"], (1, 2), strict=True):
        assert batch["batch_size"] == size
        assert len(batch["first_token_s"]) == 3
        assert len(batch["next_token_s"]) == 3 * 3
        assert all(value > 0 for value in batch["next_token_s"])
    code, message = refused(
        *("--model", str(model), "--offline", str(out), "--max-model-len", "16")
    )
    assert code == 2
    assert "the context is 16 tokens" in message


def test_a_model_that_the_lean_path_does_not_know_runs_by_transformers(tmp_path: Path) -> None:
    """Its activation is another; INT8 layers are multiplied as on the lean path."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300}
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **sizes, **heads}
    text = json.dumps({**config, "hidden_act": "gelu", "max_position_embeddings": 64})
    (tmp_path / "config.json").write_text(text)
    started = start_worker(tmp_path, "--load-format", "dummy", "--weight-only", "int8")
    try:
        (shown,) = started.get("/v1/models")[1]["data"]
        assert shown["execution"]["path"] == "transformers"
        assert "its activation is gelu" in shown["execution"]["why"]
        fields = {"prompt": [list(range(20)), [5]], "max_tokens": 5, "temperature": 0}
        status, made = started.post(TEXT, {**fields, "ignore_eos": True})
        assert status == 200
        assert made["usage"]["completion_tokens"] == 10
    finally:
        started.process.terminate()
        _, log = started.process.communicate(timeout=60)
    assert "runs by the transformers path, because its activation is gelu" in log
