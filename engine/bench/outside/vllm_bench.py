"""`vllm bench serve`: the load generator that vLLM brings."""

import json
from collections.abc import Sequence
from pathlib import Path

from engine.bench.outside.job import Answer, Job, One, tpot_of
from engine.bench.prompts import Prompt
from engine.bench.values import Load
from engine.core.errors import ControlError

_RESULT = "vllm.json"


class VllmBench:
    """One process, aiohttp. Read as version 0.32 writes it."""

    name = "vllm"
    program = "vllm"
    package = "vllm"
    key_variable = "OPENAI_API_KEY"
    differs: Sequence[str] = (
        "vLLM's tokens/s divide the tokens of finished requests by the time from the first send "
        "to the last answer, slow beginning and end included; ours count what arrives in a window",
        "vLLM's TTFT begins before its HTTP client connects and writes; ours begins at the socket",
        "of a chat vLLM's TTFT ends with the opening event, which has no text yet; its first gap "
        "then lasts until the first text",
        "all streams of vLLM start at one instant, ours are spread over one inter-token time",
    )

    def why_not(self, load: Load, prompts: Sequence[Prompt]) -> str | None:
        if load.requests is None:
            return "vllm bench serve counts requests and knows no duration: give --requests N"
        if any(one.max_tokens not in (None, load.output_len) for one in prompts):
            return "vllm bench serve has one --output-len for all, and some prompts have their own"
        if any(one.messages and not _is_question(one) for one in prompts):
            return "vllm bench serve asks one question without a system's words or earlier answers"
        return None

    def words(self, job: Job) -> list[str]:
        """As a ShareGPT file, which is the one form of ours that needs no pandas."""
        load = job.load
        is_chat = bool(job.prompts[0].messages)
        talks = [
            [{"from": "human", "value": _text(one)}, {"from": "gpt", "value": "an answer"}]
            for one in job.prompts
        ]
        prompts = job.folder / "prompts.json"
        prompts.write_text(json.dumps([{"conversations": talk} for talk in talks]))
        return [
            *("bench", "serve", "--backend", "openai-chat" if is_chat else "openai"),
            *("--base-url", job.base, "--endpoint", job.path, "--model", job.model),
            *("--tokenizer", job.tokenizer, "--dataset-name", "sharegpt"),
            *("--dataset-path", str(prompts), "--sharegpt-output-len", str(load.output_len)),
            *("--disable-shuffle", "--no-oversample", "--num-prompts", str(load.requests)),
            *("--num-warmups", str(load.warmups), *_pace(load)),
            *(("--ignore-eos",) if load.ignore_eos else ()),
            *("--temperature", f"{load.temperature:g}", "--seed", str(load.seed)),
            *("--disable-tqdm", "--save-result", "--save-detailed"),
            *("--result-dir", str(job.folder), "--result-filename", _RESULT),
        ]

    def read(self, folder: Path) -> Answer:
        told = json.loads((folder / _RESULT).read_text())
        sent = int(told["completed"]) + int(told["failed"])
        if sent < told["num_prompts"]:
            raise ControlError(
                what=f"vllm bench serve left out {told['num_prompts'] - sent} of "
                f"{told['num_prompts']} prompts",
                why="from a file it takes prompts of 4 to 1,024 tokens, of 2,048 with the answer",
                do="Ask shorter ones, or let another backend measure",
            )
        requests = []
        rows = zip(
            told["ttfts"],
            told["itls"],
            told["latencies"],
            told["input_lens"],
            told["output_lens"],
            told["errors"],
            strict=True,
        )
        for ttft_s, gaps_s, e2e_s, prompt_tokens, output_tokens, error in rows:
            if error:
                continue
            tpot_s = tpot_of(ttft_s, e2e_s, output_tokens)
            requests.append(One(ttft_s, e2e_s, tpot_s, gaps_s, prompt_tokens, output_tokens))
        errors = [error for error in told["errors"] if error]
        return Answer(
            requests, int(told["failed"]), errors[0] if errors else None, float(told["duration"])
        )


def _pace(load: Load) -> list[str]:
    if load.rate is None:
        return ["--max-concurrency", str(load.concurrency)]
    # Of its gamma arrivals 1 is Poisson; evenly spaced ones are the limit of a large number.
    burstiness = "1" if load.arrival == "poisson" else "1000000"
    return [
        *("--request-rate", f"{load.rate:g}", "--burstiness", burstiness),
        *("--max-concurrency", str(load.max_in_flight)),
    ]


def _is_question(prompt: Prompt) -> bool:
    """One message of a person, with plain text."""
    (first, *more) = prompt.messages
    return not more and first.get("role") == "user" and isinstance(first.get("content"), str)


def _text(prompt: Prompt) -> str:
    return str(prompt.messages[0]["content"]) if prompt.messages else prompt.text
