"""Prompts of a file: its forms, its order, and its mistakes by line."""

import hashlib
import json
from pathlib import Path

import pytest

from engine.bench import Load, run
from engine.bench.prompt_file import read_prompts
from engine.core.errors import UsageError
from tests.bench.fakes import Fake, log

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]


def written(folder: Path, *lines: object) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines))
    return path


def test_every_form_of_a_line(tmp_path: Path) -> None:
    talk = [
        {"from": "gpt", "value": "I was here before."},
        {"from": "system", "value": "Be kind."},
        {"from": "human", "value": "Why?"},
        {"from": "gpt", "value": "Because."},
        {"from": "human", "value": "And how?"},
    ]
    path = written(
        tmp_path,
        {"prompt": "Once", "max_tokens": 7},
        "",
        {"messages": CHAT, "id": "x"},
        {"conversations": talk, "id": "ignored", "model": "too"},
        {"conversations": [{"from": "gpt", "value": "nobody asks"}]},
    )
    found = read_prompts(path, 0)
    text, chat, talked = found.prompts
    assert (text.text, text.max_tokens, text.path) == ("Once", 7, "/v1/completions")
    assert (chat.content, chat.path) == ({"messages": CHAT}, "/v1/chat/completions")
    assert talked.messages == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Why?"},
    ]
    assert found.facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found.facts["prompts"], found.facts["chats"], found.facts["left_out"]) == (3, 2, 1)


def test_a_sharegpt_collection_is_one_array(tmp_path: Path) -> None:
    path = tmp_path / "sharegpt.json"
    talk = [{"from": "human", "value": "Hm?"}, {"from": "gpt", "value": "Hm."}]
    path.write_text(json.dumps([{"id": "a", "conversations": talk}, {"conversations": []}]))
    found = read_prompts(path, 0)
    assert [one.messages for one in found.prompts] == [[{"role": "user", "content": "Hm?"}]]
    path.write_text(json.dumps([{"conversations": talk}, {"conversation": talk}]))
    with pytest.raises(UsageError, match=r"missing required field `conversations`.*entry `\[1\]"):
        read_prompts(path, 0)


def test_the_order_comes_from_the_seed_and_is_another_one_each_time_round(tmp_path: Path) -> None:
    path = written(tmp_path, *({"prompt": f"p{number}"} for number in range(50)))

    def order(seed: int, turn: int) -> list[str]:
        prompts = read_prompts(path, seed)
        return [prompts.prompt(50 * turn + number, 0).text for number in range(50)]

    first = order(1, 0)
    assert sorted(first) == sorted(f"p{number}" for number in range(50))
    assert order(1, 0) == first
    assert sorted(order(1, 1)) == sorted(first)
    assert len({tuple(first), tuple(order(1, 1)), tuple(order(2, 0))}) == 3


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "truncated"),
        ('"text"', "no JSON object"),
        ({"prompt": "a", "max_token": 1}, "unknown key 'max_token'"),
        ({"max_tokens": 1}, "needs a prompt or messages"),
        ({"prompt": "a", "messages": CHAT}, "not both"),
        ({"prompt": ""}, "an empty one"),
        ({"prompt": "a", "max_tokens": 0}, "whole number"),
        ({"prompt": "a", "max_tokens": True}, "whole number"),
        ({"messages": []}, "an empty one"),
        ({"messages": [{"content": "a"}]}, "message 1 has no role"),
        ({"messages": [{"role": "user"}]}, "message 1 has no content"),
        ({"conversations": [{"from": "human"}]}, "value"),
    ],
)
def test_a_mistake_names_file_and_line(tmp_path: Path, line: object, why: str) -> None:
    with pytest.raises(UsageError, match=r"prompts.jsonl, line 3 cannot be asked") as caught:
        read_prompts(written(tmp_path, {"prompt": "fine"}, "", line), 0)
    assert why in caught.value.why


def test_a_file_without_a_question(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it is empty"):
        read_prompts(written(tmp_path, ""), 0)
    silent = {"conversations": [{"from": "gpt", "value": "x"}]}
    with pytest.raises(UsageError, match="nobody asks anything"):
        read_prompts(written(tmp_path, silent), 0)
    with pytest.raises(UsageError, match="No such file"):
        read_prompts(tmp_path / "none.jsonl", 0)


async def test_an_engine_is_asked_what_the_file_has(fake: Fake, tmp_path: Path) -> None:
    lines = [{"prompt": "Once upon", "max_tokens": 3}, {"messages": CHAT}]
    prompts = read_prompts(written(tmp_path, *lines), 5)
    target = fake()
    load = Load(output_len=6, duration_s=None, requests=6, warmup_requests=0, seed=5)
    report = await run([target], load, prompts=prompts)
    (row,) = report.targets
    assert (row.requests, row.errors) == (6, 0)
    # After the one probe.
    asked = [one["body"] for one in (await log(target))[1:]]
    assert [one["max_tokens"] for one in asked if "prompt" in one] == [3, 3, 3]
    assert [one["max_tokens"] for one in asked if "messages" in one] == [6, 6, 6]
    assert all(one["ignore_eos"] for one in asked)
    assert report.manifest["prompts"] == prompts.facts
