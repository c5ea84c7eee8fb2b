"""`vllm bench serve`: the load generator that vLLM brings."""

import json
from collections.abc import Sequence
from pathlib import Path

from engine.bench.outside.job import Answer, Job, One, tpot_of
from engine.bench.values import Load

_RESULT = "vllm.json"


class VllmBench:
    """One process, aiohttp. Read as version 0.32 writes it."""

    name = "vllm"
    program = "vllm"
    package = "vllm"
    differs: Sequence[str] = (
        "vLLM's tokens/s divide the tokens of finished requests by the time from the first send "
        "to the last answer, slow beginning and end included; ours count what arrives in a window",
        "vLLM's TTFT begins before its HTTP client connects and writes; ours begins at the socket",
        "all streams of vLLM start at one instant, ours are spread over one inter-token time",
    )

    def why_not(self, load: Load) -> str | None:
        if load.requests is None:
            return "vllm bench serve counts requests and knows no duration: give --requests N"
        return None

    def words(self, job: Job) -> list[str]:
        """As a ShareGPT file, which is the one form of ours that needs no pandas."""
        load = job.load
        talks = [
            [{"from": "human", "value": text}, {"from": "gpt", "value": "an answer of some words"}]
            for text in job.prompts
        ]
        prompts = job.folder / "prompts.json"
        prompts.write_text(json.dumps([{"conversations": talk} for talk in talks]))
        return [
            *("bench", "serve", "--backend", "openai", "--base-url", job.base),
            *("--endpoint", "/v1/completions", "--model", job.model),
            *("--tokenizer", job.tokenizer, "--dataset-name", "sharegpt"),
            *("--dataset-path", str(prompts), "--sharegpt-output-len", str(load.output_len)),
            *("--disable-shuffle", "--num-prompts", str(load.requests)),
            *("--num-warmups", str(load.warmups), *_pace(load)),
            *(("--ignore-eos",) if load.ignore_eos else ()),
            *("--temperature", f"{load.temperature:g}", "--seed", str(load.seed)),
            *("--disable-tqdm", "--save-result", "--save-detailed"),
            *("--result-dir", str(job.folder), "--result-filename", _RESULT),
        ]

    def read(self, folder: Path) -> Answer:
        told = json.loads((folder / _RESULT).read_text())
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
