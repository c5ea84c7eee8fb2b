"""AIPerf: NVIDIA's load generator."""

import json
from collections.abc import Sequence
from pathlib import Path

from engine.bench.outside.job import Answer, Job, One, seconds
from engine.bench.prepare import request_body
from engine.bench.prompts import Prompt
from engine.bench.values import Load

_WHOLE, _EACH = "profile_export_aiperf.json", "profile_export.jsonl"
_WITH_KEY = """\
benchmark:
  endpoint: {{apiKey: "${{{variable}}}"}}
  dataset: {{type: file, path: {prompts}, format: {form}}}
  profiling: {{type: concurrency, concurrency: 1, requests: 1}}
"""
"""It takes a key from the environment only if a file of settings says so, and such a file must
name a data set and a load; what stands on the command line counts more."""


class AiPerf:
    """About seven processes. Read as version 0.13 writes it."""

    name = "aiperf"
    program = "aiperf"
    package = "aiperf"
    key_variable = "OPENAI_API_KEY"
    differs: Sequence[str] = (
        "AIPerf's inter-token latency is one mean a request, so our TPOT; our ITL is what it "
        "calls inter-chunk latency",
        "AIPerf's tokens/s divide the tokens of finished requests by the time from the first send "
        "to the last answer; ours count what arrives in a window",
        "all streams of AIPerf start at one instant, ours are spread over one inter-token time",
    )

    def why_not(self, load: Load, prompts: Sequence[Prompt]) -> str | None:
        return None

    def words(self, job: Job) -> list[str]:
        load = job.load
        prompts = job.folder / "prompts.jsonl"
        prompts.write_text("".join(json.dumps(_row(job, one)) + "\n" for one in job.prompts))
        is_chat = bool(job.prompts[0].messages)
        form = "raw_payload" if is_chat else "single_turn"
        settings = []
        if job.api_key is not None:
            with_key = job.folder / "settings.yaml"
            known = {"variable": self.key_variable, "prompts": prompts.name, "form": form}
            with_key.write_text(_WITH_KEY.format_map(known))
            settings = ["--config", str(with_key)]
        ends = []
        if load.requests is not None:
            ends += ["--request-count", str(load.requests)]
        if load.duration_s is not None:
            ends += ["--benchmark-duration", f"{load.duration_s:g}"]
        warmups = ["--warmup-request-count", str(load.warmups)] if load.warmups else []
        return [
            *("profile", *settings, "-m", job.model, "--url", job.base),
            *("--endpoint-type", "chat" if is_chat else "completions", "--streaming"),
            *(*_pace(load), *ends, *warmups),
            *("--input-file", str(prompts), "--custom-dataset-type", form),
            *("--use-server-token-count", "--tokenizer", job.tokenizer, "--ui", "none"),
            *("--random-seed", str(load.seed), "--artifact-dir", str(job.folder)),
        ]

    def read(self, folder: Path) -> Answer:
        whole = json.loads((folder / _WHOLE).read_text())
        requests = []
        errors: list[str] = []
        for line in (folder / _EACH).read_text().splitlines():
            row = json.loads(line)
            if row["metadata"]["benchmark_phase"] != "profiling":
                continue
            if row.get("error"):
                errors.append(str(row["error"].get("message", row["error"])))
                continue
            got = {name: one["value"] for name, one in row["metrics"].items()}
            each = got.get("inter_token_latency")
            requests.append(
                One(
                    ttft_s=seconds(got["time_to_first_token"]),
                    e2e_s=seconds(got["request_latency"]),
                    tpot_s=None if each is None else seconds(each),
                    gaps_s=[seconds(gap) for gap in got.get("inter_chunk_latency") or ()],
                    prompt_tokens=got.get("input_sequence_length"),
                    output_tokens=int(got["output_sequence_length"]),
                )
            )
        duration_s = float(whole["benchmark_duration"]["avg"])
        return Answer(requests, len(errors), errors[0] if errors else None, duration_s)


def _pace(load: Load) -> list[str]:
    if load.rate is None:
        return ["--concurrency", str(load.concurrency)]
    return [
        *("--request-rate", f"{load.rate:g}", "--arrival-pattern", load.arrival),
        *("--concurrency", str(load.max_in_flight)),
    ]


def _row(job: Job, prompt: Prompt) -> dict[str, object]:
    """A chat is sent as it stands here; a text gets the rest of our request as extras."""
    body = request_body(job.load, job.model, prompt)
    if prompt.messages:
        return body
    formatted = ("model", "prompt", "stream", "stream_options")
    extra = {name: value for name, value in body.items() if name not in formatted}
    return {"text": prompt.text, "extra": extra}
