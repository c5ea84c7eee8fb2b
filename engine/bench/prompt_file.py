"""Prompts from a file: JSON lines of texts or chats, or a ShareGPT collection."""

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.bench.prompts import Prompt
from engine.core.errors import UsageError

LARGEST_FILE: Final = 4 << 30
_PERSONS: Final = {"human": "user", "user": "user", "system": "system"}
"""Whoever speaks before the engine does, in ShareGPT's words and in the API's."""
_KNOWN: Final = ("prompt", "messages", "max_tokens", "id")
_FORMS: Final = (
    'a line is {"prompt": "…"} or {"messages": [{"role": "user", "content": "…"}]}, each with '
    'max_tokens if it likes, or {"conversations": [{"from": "human", "value": "…"}]}'
)


@dataclass(frozen=True, slots=True)
class PromptFile:
    """Its prompts in a seeded order, another one each time that they start over."""

    prompts: Sequence[Prompt]
    seed: int
    facts: Mapping[str, object]

    def prompt(self, number: int, words: int) -> Prompt:
        """`words` is for made-up prompts: these have lengths of their own."""
        turn, place = divmod(number, len(self.prompts))
        return self.prompts[_order(len(self.prompts), self.seed, turn)[place]]


@lru_cache(maxsize=2)
def _order(count: int, seed: int, turn: int) -> tuple[int, ...]:
    order = list(range(count))
    random.Random(f"order {seed} {turn}").shuffle(order)
    return tuple(order)


class _Turn(msgspec.Struct, gc=False):
    said_by: str = msgspec.field(name="from")
    value: str


class _Conversation(msgspec.Struct):
    conversations: list[_Turn]


class _Wrong(Exception):
    """Why a record is no prompt."""


def read_prompts(path: Path, seed: int) -> PromptFile:
    """Raises UsageError, which names the file and the line."""
    raw = _bytes(path)
    is_collection = raw.lstrip()[:1] == b"["
    found = list(_of_array(path, raw) if is_collection else _of_lines(path, raw))
    prompts = [one for one in found if one is not None]
    if not prompts:
        raise _mistake(path.name, "nobody asks anything in it" if found else "it is empty")
    facts = {
        "kind": "file",
        "file": path.name,
        "sha256": hashlib.sha256(raw).hexdigest(),
        "prompts": len(prompts),
        "chats": sum(bool(one.messages) for one in prompts),
        "left_out": len(found) - len(prompts),
        "order": f"shuffled with seed {seed}, anew each time round",
    }
    return PromptFile(prompts, seed, facts)


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise _mistake(path.name, f"it is larger than {LARGEST_FILE >> 30} GiB")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            what=f"The prompts {path} cannot be read",
            why=error.strerror or str(error),
            do="Name a file of prompts",
        ) from None


def _of_array(path: Path, raw: bytes) -> Iterable[Prompt | None]:
    """One JSON array, as ShareGPT is published."""
    try:
        entries = msgspec.json.decode(raw, type=list[_Conversation])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        why = str(error).replace("`$[", "entry `[")
        raise _mistake(path.name, f"as a ShareGPT collection: {why}") from None
    return [_asked_by_a_person(one) for one in entries]


def _of_lines(path: Path, raw: bytes) -> Iterable[Prompt | None]:
    for number, line in enumerate(raw.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            yield _of_record(msgspec.json.decode(line))
        except (_Wrong, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _mistake(f"{path.name}, line {number}", str(error)) from None


def _of_record(record: Any) -> Prompt | None:
    if not isinstance(record, dict):
        raise _Wrong("it is no JSON object")
    if "conversations" in record:
        return _asked_by_a_person(msgspec.convert(record, _Conversation))
    for key in record:
        if key not in _KNOWN:
            raise _Wrong(f"unknown key {key!r}; it may have: {', '.join(_KNOWN)}")
    longest = record.get("max_tokens")
    if longest is not None and (not isinstance(longest, int) or longest is True or longest < 1):
        raise _Wrong("max_tokens is not a whole number from 1 on")
    text, messages = record.get("prompt"), record.get("messages")
    if (text is None) == (messages is None):
        raise _Wrong("it needs a prompt or messages" + ", not both" * (text is not None))
    if messages is not None:
        return Prompt(messages=_checked(messages), max_tokens=longest)
    if not isinstance(text, str) or not text:
        raise _Wrong("its prompt is no text, or an empty one")
    return Prompt(text, max_tokens=longest)


def _checked(messages: Any) -> list[dict[str, object]]:
    if not isinstance(messages, list) or not messages:
        raise _Wrong("its messages are no list, or an empty one")
    for number, one in enumerate(messages, 1):
        if not isinstance(one, dict) or not isinstance(one.get("role"), str):
            raise _Wrong(f"message {number} has no role")
        if not isinstance(one.get("content"), str | list):
            raise _Wrong(f"message {number} has no content")
    return messages


def _asked_by_a_person(entry: _Conversation) -> Prompt | None:
    """What stands before the first answer, up to the person's first question; None without one."""
    messages = []
    for turn in entry.conversations:
        role = _PERSONS.get(turn.said_by)
        if role is None or not turn.value.strip():
            continue
        messages.append({"role": role, "content": turn.value})
        if role == "user":
            return Prompt(messages=messages)
    return None


def _mistake(where: str, why: str) -> UsageError:
    return UsageError(what=f"{where} cannot be asked", why=why, do=f"Correct it: {_FORMS}")
