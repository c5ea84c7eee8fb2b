"""What a client asked for: the JSON of a request, checked and turned into our own terms."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from engine.worker.errors import RequestRefused
from engine.worker.sequence import Sampling

_COMPLETION_TOKENS = 16
"""OpenAI's default of /v1/completions."""
_MOST_PROMPTS = 1024
_MOST_STOPS = 64


@dataclass(frozen=True)
class Asked:
    is_chat: bool
    prompts: tuple[tuple[int, ...], ...]
    samplings: tuple[Sampling, ...]
    """One a prompt: what is left of the context differs."""
    stream: bool
    include_usage: bool
    continuous_usage: bool


class Prompts:
    """How text becomes tokens here; the caller brings the model's own way."""

    def __init__(
        self,
        *,
        encode: Callable[[str], list[int]],
        chat: Callable[[list[dict[str, Any]]], list[int]],
        vocabulary: int,
        max_length: int,
    ) -> None:
        self.encode, self.chat = encode, chat
        self.vocabulary, self.max_length = vocabulary, max_length


def parse(body: bytes, *, is_chat: bool, model_name: str, prompts: Prompts) -> Asked:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestRefused(f"The body is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RequestRefused("The body must be a JSON object.")
    _check_model(fields, model_name)
    _refuse_unserved(fields)
    stream = _flag(fields, "stream")
    include_usage, continuous = _stream_options(fields, stream=stream)
    chat = [prompts.chat(_messages(fields))] if is_chat else None
    tokens = chat or _completion_prompts(fields, prompts)
    limit = _max_tokens(fields)
    common = _sampling(fields)
    samplings = []
    for prompt in tokens:
        room = _room(prompt, limit, prompts.max_length, is_chat=is_chat)
        samplings.append(Sampling(max_tokens=room, **common))
    if common["min_tokens"] > min(sampling.max_tokens for sampling in samplings):
        _refuse("min_tokens", "min_tokens must not be greater than max_tokens.")
    return Asked(
        is_chat=is_chat,
        prompts=tuple(map(tuple, tokens)),
        samplings=tuple(samplings),
        stream=stream,
        include_usage=include_usage,
        continuous_usage=continuous,
    )


def _refuse(param: str, message: str, *, code: str | None = None) -> NoReturn:
    raise RequestRefused(message, param=param, code=code)


def _check_model(fields: dict[str, Any], model_name: str) -> None:
    asked = fields.get("model", model_name)
    if not isinstance(asked, str):
        _refuse("model", "model must be a string.")
    if asked != model_name:
        raise RequestRefused(
            f"The model `{asked}` does not exist; this server has `{model_name}`.",
            status=404,
            kind="NotFoundError",
            param="model",
            code="model_not_found",
        )


def _refuse_unserved(fields: dict[str, Any]) -> None:
    if _whole(fields, "n", default=1, least=1) != 1:
        _refuse("n", "n must be 1: this server makes one choice a prompt.")
    if _whole(fields, "best_of", default=1, least=1) != 1:
        _refuse("best_of", "best_of must be 1: this server makes one choice a prompt.")
    if _flag(fields, "echo"):
        _refuse("echo", "echo is not supported: the prompt is never repeated.")
    logprobs = fields.get("logprobs")
    # 0 asks /v1/completions for logprobs too, those of the chosen tokens; and 0 equals False.
    if logprobs is not None and logprobs is not False:
        _refuse("logprobs", "logprobs are not supported.")
    for name in ("top_logprobs", "prompt_logprobs"):
        if fields.get(name) not in (None, 0):
            _refuse(name, f"{name} are not supported.")
    if fields.get("suffix"):
        _refuse("suffix", "suffix is not supported.")


def _stream_options(fields: dict[str, Any], *, stream: bool) -> tuple[bool, bool]:
    options = fields.get("stream_options")
    if options is None:
        return False, False
    if not isinstance(options, dict):
        _refuse("stream_options", "stream_options must be an object.")
    if not stream:
        _refuse("stream_options", "stream_options are allowed only when stream is true.")
    return _flag(options, "include_usage"), _flag(options, "continuous_usage_stats")


def _completion_prompts(fields: dict[str, Any], prompts: Prompts) -> list[list[int]]:
    given = fields.get("prompt")
    if given is None:
        _refuse("prompt", "prompt is missing.")
    if isinstance(given, str) or (isinstance(given, list) and _are_ids(given)):
        given = [given]
    if not isinstance(given, list):
        _refuse("prompt", _PROMPT_FORMS)
    if not given:
        _refuse("prompt", "prompt must not be empty.")
    if len(given) > _MOST_PROMPTS:
        _refuse("prompt", f"There may be at most {_MOST_PROMPTS} prompts in one request.")
    return [_prompt_ids(one, prompts) for one in given]


_PROMPT_FORMS = (
    "prompt must be a string, a list of strings, a list of token ids or a list of those."
)


def _are_ids(given: list[Any]) -> bool:
    return bool(given) and all(_is_whole(item) for item in given)


def _prompt_ids(given: Any, prompts: Prompts) -> list[int]:
    if isinstance(given, str):
        ids = prompts.encode(given)
    elif isinstance(given, list) and all(_is_whole(item) for item in given):
        ids = given
        for token in ids:
            if not 0 <= token < prompts.vocabulary:
                _refuse(
                    "prompt", f"The token id {token} is not from 0 to {prompts.vocabulary - 1}."
                )
    else:
        _refuse("prompt", _PROMPT_FORMS)
    if not ids:
        _refuse("prompt", "prompt must have at least one token.")
    return ids


def _messages(fields: dict[str, Any]) -> list[dict[str, Any]]:
    given = fields.get("messages")
    if not isinstance(given, list) or not given:
        _refuse("messages", "messages must be a list with at least one message.")
    return [_message(index, message) for index, message in enumerate(given)]


def _message(index: int, message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        _refuse(f"messages.{index}", f"messages[{index}] must be an object.")
    if not isinstance(message.get("role"), str):
        _refuse(f"messages.{index}.role", f"messages[{index}].role must be a string.")
    return {**message, "content": _content(index, message.get("content"))}


def _content(index: int, content: Any) -> str:
    where = f"messages.{index}.content"
    if content is None:
        return ""  # an assistant's turn that only called a tool
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        _refuse(where, f"messages[{index}].content must be a string or a list of text parts.")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            _refuse(where, f"messages[{index}].content may have parts of the type text only.")
        texts.append(part["text"])
    return "\n".join(texts)


def _max_tokens(fields: dict[str, Any]) -> int | None:
    name = "max_completion_tokens"
    if fields.get(name) is None:
        name = "max_tokens"
    return None if fields.get(name) is None else _whole(fields, name, default=1, least=1)


def _room(prompt: list[int], limit: int | None, max_length: int, *, is_chat: bool) -> int:
    """How many tokens this prompt may get."""
    left = max_length - len(prompt)
    param = "messages" if is_chat else "prompt"
    if left < 1:
        _refuse(
            param,
            f"This model's maximum context length is {max_length} tokens, and the prompt alone "
            f"has {len(prompt)}: at most {max_length - 1} leave room for an answer.",
            code="context_length_exceeded",
        )
    if limit is not None and limit > left:
        _refuse(
            "max_tokens",
            f"This model's maximum context length is {max_length} tokens, and {len(prompt)} of "
            f"the prompt with {limit} asked for make {len(prompt) + limit}.",
            code="context_length_exceeded",
        )
    if limit is not None:
        return limit
    return left if is_chat else min(left, _COMPLETION_TOKENS)


def _sampling(fields: dict[str, Any]) -> dict[str, Any]:
    top_k = _whole(fields, "top_k", default=0, least=-1)
    seed = fields.get("seed")
    if seed is not None:
        seed = _whole(fields, "seed", default=0, least=-(2**63)) % 2**63
    return {
        "min_tokens": _whole(fields, "min_tokens", default=0, least=0),
        "temperature": _number(fields, "temperature", default=1.0, least=0.0, most=2.0),
        "top_p": _number(fields, "top_p", default=1.0, above=0.0, most=1.0),
        "top_k": max(0, top_k),
        "seed": seed,
        "stop": _stops(fields),
        "ignore_eos": _flag(fields, "ignore_eos"),
    }


def _stops(fields: dict[str, Any]) -> tuple[str, ...]:
    given = fields.get("stop")
    if given is None:
        return ()
    stops = [given] if isinstance(given, str) else given
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        _refuse("stop", "stop must be a string or a list of strings.")
    if not all(stops):
        _refuse("stop", "A stop string must not be empty.")
    if len(stops) > _MOST_STOPS:
        _refuse("stop", f"There may be at most {_MOST_STOPS} stop strings.")
    return tuple(stops)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(fields: dict[str, Any], name: str, *, default: int, least: int) -> int:
    value = fields.get(name)
    if value is None:
        return default
    if not _is_whole(value):
        _refuse(name, f"{name} must be a whole number.")
    if value < least:
        _refuse(name, f"{name} must be at least {least}, not {value}.")
    return int(value)


def _number(
    fields: dict[str, Any],
    name: str,
    *,
    default: float,
    least: float | None = None,
    above: float | None = None,
    most: float,
) -> float:
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        _refuse(name, f"{name} must be a number.")
    # Written so that NaN, which Python's JSON lets through, fits nowhere.
    fits = value <= most and (least is None or value >= least) and (above is None or value > above)
    if not fits:
        lowest = f"from {least}" if least is not None else f"above {above}"
        _refuse(name, f"{name} must be {lowest} up to {most}, not {value}.")
    return float(value)


def _flag(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        _refuse(name, f"{name} must be true or false.")
    return value
