"""AIPerf: NVIDIA's load generator."""

import json
from collections.abc import Sequence
from pathlib import Path

from engine.bench.outside.job import Answer, Job, One, seconds
from engine.bench.values import Load

_WHOLE, _EACH = "profile_export_aiperf.json", "profile_export.jsonl"


class AiPerf:
    """About seven processes. Read as version 0.13 writes it."""

    name = "aiperf"
    program = "aiperf"
    package = "aiperf"
    differs: Sequence[str] = (
        "AIPerf's inter-token latency is one mean a request, so our TPOT; our ITL is what it "
        "calls inter-chunk latency",
        "AIPerf's tokens/s divide the tokens of finished requests by the time from the first send "
        "to the last answer; ours count what arrives in a window",
        "all streams of AIPerf start at one instant, ours are spread over one inter-token time",
    )

    def why_not(self, load: Load) -> str | None:
        return None

    def words(self, job: Job) -> list[str]:
        load = job.load
        prompts = job.folder / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"text": text}) + "\n" for text in job.prompts))
        ends = []
        if load.requests is not None:
            ends += ["--request-count", str(load.requests)]
        if load.duration_s is not None:
            ends += ["--benchmark-duration", f"{load.duration_s:g}"]
        warmups = ["--warmup-request-count", str(load.warmups)] if load.warmups else []
        extra = [f"max_tokens:{load.output_len}", f"temperature:{load.temperature:g}"]
        if load.ignore_eos:
            extra.append("ignore_eos:true")
        return [
            *("profile", "-m", job.model, "--url", job.base),
            *("--endpoint-type", "completions", "--streaming", *_pace(load), *ends, *warmups),
            *("--input-file", str(prompts), "--custom-dataset-type", "single_turn"),
            *(word for one in extra for word in ("--extra-inputs", one)),
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
