"""Bad input: each kind is answered in the shape of OpenAI's errors, and the server goes on."""

import socket
from typing import Any

import pytest

from tests.worker.worker_process import Worker

pytestmark = pytest.mark.torch

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [49152]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "max_tokens": "many"}, "max_tokens"),
        ({"prompt": "a", "max_tokens": True}, "max_tokens"),
        ({"prompt": "a", "min_tokens": -1}, "min_tokens"),
        ({"prompt": "a", "min_tokens": 20, "max_tokens": 10}, "min_tokens"),
        ({"prompt": "a", "temperature": -0.1}, "temperature"),
        ({"prompt": "a", "temperature": 2.1}, "temperature"),
        ({"prompt": "a", "temperature": "hot"}, "temperature"),
        ({"prompt": "a", "temperature": float("nan")}, "temperature"),
        ({"prompt": "a", "top_p": 0}, "top_p"),
        ({"prompt": "a", "top_p": 1.5}, "top_p"),
        ({"prompt": "a", "top_k": -2}, "top_k"),
        ({"prompt": "a", "top_k": 1.5}, "top_k"),
        ({"prompt": "a", "seed": "x"}, "seed"),
        ({"prompt": "a", "stop": 5}, "stop"),
        ({"prompt": "a", "stop": [""]}, "stop"),
        ({"prompt": "a", "stream": "yes"}, "stream"),
        ({"prompt": "a", "stream_options": {"include_usage": True}}, "stream_options"),
        ({"prompt": "a", "stream": True, "stream_options": 1}, "stream_options"),
        ({"prompt": "a", "ignore_eos": 1}, "ignore_eos"),
        ({"prompt": "a", "n": 2}, "n"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": "a", "logprobs": 1}, "logprobs"),
        ({"prompt": "a", "logprobs": 0}, "logprobs"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "model": 5}, "model"),
    ],
)
def test_a_bad_completion_request_names_its_field(
    worker: Worker, fields: dict[str, Any], param: str
) -> None:
    check_refusal(worker.post(TEXT, fields), param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": ["Hello"]}, "messages.0"),
        ({"messages": [{"content": "Hello"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages.0.content",
        ),
        ({"messages": HELLO, "max_completion_tokens": 0}, "max_completion_tokens"),
        ({"messages": HELLO, "logprobs": True}, "logprobs"),
        ({"messages": HELLO, "top_logprobs": 3}, "top_logprobs"),
    ],
)
def test_a_bad_chat_request_names_its_field(
    worker: Worker, fields: dict[str, Any], param: str
) -> None:
    check_refusal(worker.post(CHAT, fields), param)


def check_refusal(answer: tuple[int, Any], param: str | None) -> None:
    status, body = answer
    assert status == 400, body
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert isinstance(error["message"], str)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object(worker: Worker, body: bytes) -> None:
    check_refusal(worker.post(TEXT, body), None)


def test_fields_that_nobody_knows_are_let_through(worker: Worker) -> None:
    made = worker.complete("a", max_tokens=2, user="me", frobnicate=[1], logprobs=None)
    assert made["usage"]["completion_tokens"] == 2


def test_another_model_is_not_found(worker: Worker) -> None:
    status, body = worker.post(TEXT, {"model": "gpt-4o", "prompt": "a"})
    assert status == 404
    assert body["error"]["code"] == "model_not_found"


def test_a_prompt_longer_than_the_context_says_both_numbers(worker: Worker) -> None:
    status, body = worker.post(TEXT, {"prompt": [5] * 1024})
    assert status == 400
    assert body["error"]["code"] == "context_length_exceeded"
    assert "1024" in body["error"]["message"]
    long = [{"role": "user", "content": "word " * 2000}]
    status, body = worker.post(CHAT, {"messages": long})
    assert (status, body["error"]["code"]) == (400, "context_length_exceeded")
    assert body["error"]["param"] == "messages"


def test_prompt_and_answer_together_must_fit_when_asked_for(worker: Worker) -> None:
    status, body = worker.post(TEXT, {"prompt": [5] * 1000, "max_tokens": 25})
    assert (status, body["error"]["code"]) == (400, "context_length_exceeded")
    assert body["error"]["param"] == "max_tokens"
    assert "1024" in body["error"]["message"]
    assert "1025" in body["error"]["message"]


def test_an_answer_is_cut_at_the_context_when_no_length_was_asked_for(worker: Worker) -> None:
    made = worker.complete([5] * 1020, ignore_eos=True)
    made["usage"].pop("prompt_tokens_details")
    assert made["usage"] == {"prompt_tokens": 1020, "completion_tokens": 4, "total_tokens": 1024}
    assert made["choices"][0]["finish_reason"] == "length"


def test_paths_and_methods(worker: Worker) -> None:
    assert worker.get("/nothing")[0] == 404
    assert worker.get(TEXT)[0] == 405
    assert worker.post("/health", {})[0] == 405
    assert worker.get("/health") == (200, {"status": "ok"})


def test_a_body_beyond_the_limit_is_refused_before_it_is_sent(worker: Worker) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n"
    with socket.create_connection(("127.0.0.1", worker.port), timeout=30) as sock:
        sock.sendall(head)
        assert sock.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_one_connection_serves_many_requests(worker: Worker) -> None:
    with worker.connection() as connection:
        for _ in range(3):
            connection.request("GET", "/v1/models")
            answer = connection.getresponse()
            assert answer.status == 200
            answer.read()
            sock = connection.sock
            assert sock is not None
