"""Before the load: which model answers, how many words make a prompt, how fast tokens come."""

import statistics
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import urlsplit, urlunsplit

from engine.bench.prompts import Prompt, Prompts
from engine.bench.values import Load, Target
from engine.core.errors import EngineUnreachable
from engine.drivers import openai_api
from engine.drivers.openai_api import Finished, Piece

PROBE_WORDS = 32
PROBES = 4
"""Prompts 0-3 are the probes'; the load begins at FIRST_PROMPT for every target alike."""
FIRST_PROMPT = 8
PROBE_OUTPUT = 8
CLOSE_ENOUGH = 0.02
MODELS_TIMEOUT_S = 10.0
DEFAULT_STAGGER_S = 0.02


@dataclass(frozen=True, slots=True)
class Prepared:
    """A target that has answered."""

    target: Target
    base: str
    model: str
    models_answer: object
    words: int
    prompt_tokens: int | None
    """Of the probe that came nearest; None where the engine does not count."""
    stagger_s: float


async def prepare(target: Target, load: Load, prompts: Prompts, *, scale: bool = True) -> Prepared:
    """Raises EngineUnreachable where the target does not answer or answers with an error.

    Without `scale` one probe is enough: the load's prompts have lengths of their own.
    """
    base = base_url(target.url)
    model, answer = await _model(target, base)

    async def probe(number: int, words: int) -> Finished:
        return await openai_api.stream(
            f"{base}/v1/completions",
            request_body(
                load,
                model,
                Prompt(prompts.text(number, words), max_tokens=min(load.output_len, PROBE_OUTPUT)),
            ),
            on_piece=_ignore,
            idle_timeout_s=load.idle_timeout_s,
            api_key=target.api_key,
        )

    words = min(load.input_len, PROBE_WORDS)
    seen: list[tuple[int, int]] = []
    gaps: list[float] = []
    for number in range(PROBES):
        done = await probe(number, words)
        gaps += [later - earlier for earlier, later in pairwise(done.piece_times)]
        if done.prompt_tokens is None or not scale:
            words = load.input_len
            break
        seen.append((words, done.prompt_tokens))
        following = next_words(seen, load.input_len)
        if following is None:
            break
        words = following
    prompt_tokens = None
    if seen:
        words, prompt_tokens = min(seen, key=lambda pair: abs(pair[1] - load.input_len))
    stagger_s = load.stagger_s
    if stagger_s is None:
        stagger_s = statistics.median(gaps) if gaps else DEFAULT_STAGGER_S
    return Prepared(target, base, model, answer, words, prompt_tokens, stagger_s)


def next_words(seen: list[tuple[int, int]], wanted: int) -> int | None:
    """The number of words to try after these (words, tokens); None when it is near enough.

    One point gives the tokens per word; two give also what the engine adds to every prompt.
    """
    words, tokens = seen[-1]
    if abs(tokens - wanted) <= CLOSE_ENOUGH * wanted:
        return None
    per_word = tokens / words
    if len(seen) > 1:
        words_before, tokens_before = seen[-2]
        if words != words_before and tokens != tokens_before:
            per_word = (tokens - tokens_before) / (words - words_before)
    if per_word <= 0:
        return None
    guess = max(1, words + round((wanted - tokens) / per_word))
    return None if any(guess == tried for tried, _ in seen) else guess


def request_body(load: Load, model: str, prompt: Prompt) -> dict[str, object]:
    body: dict[str, object] = {
        "model": model,
        **prompt.content,
        "max_tokens": load.output_len if prompt.max_tokens is None else prompt.max_tokens,
        "temperature": load.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if load.ignore_eos:
        body["ignore_eos"] = True
    return body


def base_url(url: str) -> str:
    """People paste the address with or without the /v1 that clients want."""
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def shown_url(url: str) -> str:
    """For reports: without a user name, a password or a query."""
    try:
        parts = urlsplit(base_url(url))
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return "not a URL"


async def _model(target: Target, base: str) -> tuple[str, object]:
    url = f"{base}/v1/models"
    response = await openai_api.get(url, timeout_s=MODELS_TIMEOUT_S, api_key=target.api_key)
    answer: object = response.json() if response.status == 200 else None
    if target.model is not None:
        return target.model, answer
    if response.status != 200:
        raise openai_api.refused(url, response, api_key=target.api_key)
    try:
        name = response.json()["data"][0]["id"]
    except (TypeError, KeyError, IndexError):
        name = None
    if not isinstance(name, str):
        raise EngineUnreachable(
            what=f"{url} does not say which model is served",
            why="its answer has no data[0].id",
            do="Name the model.",
        )
    return name, answer


def _ignore(piece: Piece) -> None:
    """A probe wants the times only."""
