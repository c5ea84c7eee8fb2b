"""Answers of the real model, over real HTTP."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.worker.worker_process import Worker

pytestmark = pytest.mark.torch

PARIS = [{"role": "user", "content": "What is the capital of France?"}]
STORY = "Once upon a time"
PROMPTS = [
    "The sun",
    "Water boils at a temperature of",
    "In the year 1969, for the first time in history, a man walked on the",
    "def add(a, b):\n    return",
]


def test_a_chat_answer_is_coherent(worker: Worker) -> None:
    status, made = worker.post(
        "/v1/chat/completions",
        {"model": worker.name, "messages": PARIS, "temperature": 0, "max_tokens": 40},
    )
    assert status == 200
    assert "Paris" in made["choices"][0]["message"]["content"]
    assert made["choices"][0]["finish_reason"] == "stop"
    assert made["object"] == "chat.completion"


def test_text_parts_are_read_like_a_string(worker: Worker) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": PARIS[0]["content"]}]}]
    answers = [
        worker.post("/v1/chat/completions", {"messages": messages, "temperature": 0})[1]
        for messages in (PARIS, parts)
    ]
    assert answers[0]["choices"] == answers[1]["choices"]
    assert answers[0]["usage"] == answers[1]["usage"]


def test_a_stream_says_what_a_whole_answer_says_one_token_a_chunk(worker: Worker) -> None:
    whole = worker.complete(STORY, max_tokens=24)
    chunks = list(
        worker.stream(
            "/v1/completions",
            prompt=STORY,
            max_tokens=24,
            stream_options={"include_usage": True, "continuous_usage_stats": True},
        )
    )
    *tokens, closing = chunks
    assert "".join(chunk["choices"][0]["text"] for chunk in tokens) == whole["choices"][0]["text"]
    assert [chunk["usage"]["completion_tokens"] for chunk in tokens] == list(range(1, 25))
    assert closing["choices"] == []
    assert closing["usage"] == whole["usage"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in tokens[-2:]] == [None, "length"]


def test_characters_of_many_bytes_arrive_whole(worker: Worker) -> None:
    fields = {"prompt": "Emoji: 😀 😃 😄 😁 😆 😅 😂", "max_tokens": 24, "ignore_eos": True}
    pieces = [chunk["choices"][0]["text"] for chunk in worker.stream("/v1/completions", **fields)]
    assert len(pieces) == 24
    prompt = fields.pop("prompt")
    assert "".join(pieces) == worker.complete(prompt, **fields)["choices"][0]["text"]
    assert not any("\ufffd" in piece for piece in pieces[:-1])


def test_exactly_as_many_tokens_as_asked_when_the_end_is_ignored(worker: Worker) -> None:
    status, made = worker.post(
        "/v1/chat/completions",
        {"messages": PARIS, "temperature": 0, "max_completion_tokens": 30, "ignore_eos": True},
    )
    assert status == 200
    assert made["usage"]["completion_tokens"] == 30
    assert made["choices"][0]["finish_reason"] == "length"
    prompt_tokens = made["usage"]["prompt_tokens"]
    assert made["usage"]["total_tokens"] == prompt_tokens + 30


def test_min_tokens_holds_the_end_back(worker: Worker) -> None:
    fields = {"messages": PARIS, "temperature": 0, "max_tokens": 30}
    _, early = worker.post("/v1/chat/completions", fields)
    _, later = worker.post("/v1/chat/completions", {**fields, "min_tokens": 20})
    assert early["usage"]["completion_tokens"] < 20 <= later["usage"]["completion_tokens"]


@pytest.mark.parametrize(("begin", "end"), [(1, 3), (9, 16), (20, 50)])
def test_nothing_of_a_stop_string_is_sent(worker: Worker, begin: int, end: int) -> None:
    """Short, across a word's end, and so long that much must be held back."""
    fields = {"max_tokens": 30, "ignore_eos": True}
    free = worker.complete(STORY, **fields)["choices"][0]["text"]
    stop = free[begin:end]
    cut = free.index(stop)
    for stops in (stop, ["zzz", stop]):
        made = worker.complete(STORY, stop=stops, **fields)
        assert made["choices"][0]["text"] == free[:cut]
        assert made["choices"][0]["finish_reason"] == "stop"
        assert made["usage"]["completion_tokens"] < 30
    chunks = list(worker.stream("/v1/completions", prompt=STORY, stop=stop, **fields))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == free[:cut]


def test_many_prompts_make_many_choices_in_order(worker: Worker) -> None:
    singles = [worker.complete(prompt, max_tokens=12) for prompt in PROMPTS]
    together = worker.complete(PROMPTS, max_tokens=12)
    assert [choice["index"] for choice in together["choices"]] == [0, 1, 2, 3]
    assert [choice["text"] for choice in together["choices"]] == [
        single["choices"][0]["text"] for single in singles
    ]
    for count in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert together["usage"][count] == sum(single["usage"][count] for single in singles)


def test_company_of_other_lengths_changes_no_greedy_answer(worker: Worker) -> None:
    """They join while others run, and leave at different times."""
    lengths = [20, 5, 13, 8, 3, 16]
    prompts = [PROMPTS[index % 4] * (1 + index // 4) for index in range(6)]
    alone = [
        worker.complete(prompt, max_tokens=length, ignore_eos=True)["choices"][0]["text"]
        for prompt, length in zip(prompts, lengths, strict=True)
    ]
    with ThreadPoolExecutor(6) as pool:
        waiting = [
            pool.submit(worker.complete, prompt, max_tokens=length, ignore_eos=True)
            for prompt, length in zip(prompts, lengths, strict=True)
        ]
        crowd = [one.result()["choices"][0]["text"] for one in waiting]
    assert crowd == alone


def test_a_long_prompt_in_pieces_is_the_same_prompt(worker: Worker) -> None:
    """700 tokens take two pieces of prefill; the pass-phrase stands at the very start."""
    start = worker.complete("The secret word is banana. ", max_tokens=1)["usage"]["prompt_tokens"]
    prompt = "The secret word is banana. " + "It was a quiet day. " * 115 + "The secret word is"
    made = worker.complete(prompt, max_tokens=3)
    assert made["usage"]["prompt_tokens"] > 512 + start
    assert "banana" in made["choices"][0]["text"]


def test_requests_together_share_their_steps(worker: Worker) -> None:
    steps = "vllm:iteration_tokens_total_count"
    fields = {"max_tokens": 12, "ignore_eos": True}
    before = worker.metrics()[steps]
    for prompt in PROMPTS:
        worker.complete(prompt, **fields)
    one_by_one = worker.metrics()[steps] - before
    before = worker.metrics()[steps]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda prompt: worker.complete(prompt, **fields), PROMPTS))
    together = worker.metrics()[steps] - before
    assert one_by_one == 4 * 12
    assert together < one_by_one / 2


def test_a_seed_repeats_and_another_differs(worker: Worker) -> None:
    fields = {"max_tokens": 12, "temperature": 1.5, "ignore_eos": True, "top_p": 0.95}
    first, again, other = (
        worker.complete(STORY, seed=seed, **fields)["choices"][0]["text"] for seed in (7, 7, 8)
    )
    assert first == again
    assert first != other
    greedy = worker.complete(STORY, max_tokens=12, ignore_eos=True)["choices"][0]["text"]
    only_one = worker.complete(STORY, max_tokens=12, ignore_eos=True, temperature=1.5, top_k=1)
    assert only_one["choices"][0]["text"] == greedy
