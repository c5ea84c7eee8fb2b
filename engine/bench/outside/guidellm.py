"""GuideLLM: the load generator of the vLLM project's neighbours at Red Hat."""

import json
from collections.abc import Sequence
from pathlib import Path

from engine.bench.outside.job import Answer, Job, One, seconds
from engine.bench.prompts import Prompt
from engine.bench.values import Load

_RESULT = "guidellm.json"


class GuideLlm:
    """Several processes, httpx. Read as version 0.8 writes it."""

    name = "guidellm"
    program = "guidellm"
    package = "guidellm"
    key_variable = "GUIDELLM__SPEC__BACKEND__API_KEY"
    differs: Sequence[str] = (
        "GuideLLM keeps the first and the last token's time only: no gap of its own, so ITL is a "
        "dash; what it calls inter-token latency is our TPOT (and its time per output token "
        "divides the whole answer by all tokens, so it is not shown)",
        "GuideLLM's end to end lasts until the end of the HTTP answer, ours until the last token",
        "GuideLLM drops no warm-up here: its figures hold the first requests",
        "all streams of GuideLLM start at one instant, ours are spread over one inter-token time",
    )

    def why_not(self, load: Load, prompts: Sequence[Prompt]) -> str | None:
        if load.limits.itl_s is not None:
            return "GuideLLM keeps no gaps between tokens: give --tpot-ms in place of --itl-ms"
        return None

    def words(self, job: Job) -> list[str]:
        load = job.load
        prompts = job.folder / "prompts.jsonl"
        prompts.write_text("".join(json.dumps(_row(job, one)) + "\n" for one in job.prompts))
        engine = [
            *("kind=openai_http", f"target={job.base}", f"model={job.model}"),
            *(f"request_format={job.path}", "validate_backend=false"),
            *(f"max_tokens={load.output_len}", f"extras.body.temperature={load.temperature:g}"),
            *(("extras.body.ignore_eos=true",) if load.ignore_eos else ()),
        ]
        pace = f"kind=concurrent,streams={load.concurrency}"
        if load.rate is not None:
            pace = f"kind={load.arrival},rate={load.rate:g},max_concurrency={load.max_in_flight}"
        ends = []
        if load.requests is not None:
            ends.append(f"kind=max_requests,count={load.requests}")
        if load.duration_s is not None:
            ends.append(f"kind=max_duration,seconds={load.duration_s:g}")
        return [
            *("run", "--backend", ",".join(engine), "--profile", pace),
            *(word for end in ends for word in ("--constraint", end)),
            *("--tokenizer", f"kind=hf_auto,model={job.tokenizer}"),
            *("--data", f"kind=json_file,path={prompts}"),
            *("--output", f"kind=json,path={job.folder / _RESULT}", "--disable-console"),
        ]

    def read(self, folder: Path) -> Answer:
        (told,) = json.loads((folder / _RESULT).read_text())["benchmarks"]
        requests = []
        for row in told["requests"]["successful"]:
            each = row["inter_token_latency_ms"]
            requests.append(
                One(
                    ttft_s=seconds(row["time_to_first_token_ms"]),
                    e2e_s=float(row["request_latency"]),
                    tpot_s=None if each is None else seconds(each),
                    gaps_s=None,
                    prompt_tokens=row["prompt_tokens"],
                    output_tokens=int(row["output_tokens"]),
                )
            )
        failed = told["requests"]["errored"]
        first = str(failed[0]["info"]["error"]) if failed else None
        return Answer(requests, len(failed), first, float(told["duration"]))


def _row(job: Job, prompt: Prompt) -> dict[str, object]:
    asks = {"messages": prompt.messages} if prompt.messages else {"prompt": prompt.text}
    return {**asks, "output_tokens_count": job.output_len(prompt)}
