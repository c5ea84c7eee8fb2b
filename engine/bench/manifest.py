"""Everything a reader needs to repeat a benchmark, and the rules by which it counted."""

import asyncio
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from engine.bench.health import Pinned
from engine.bench.values import ClientHealth, Load, TargetReport

RULES = {
    "loop": "without a rate closed: each stream sends its next request when its last one has "
    "ended; with one open: each request is due at an instant that no answer moves, and is sent "
    "then, or when fewer than max_in_flight are under way; one new connection per request, which "
    "only latencies from the schedule hold; the engine's accepting of it is in TTFT",
    "stagger": "the streams of a target start evenly spread over stagger_s, by default one "
    "inter-token time of the idle engine",
    "warmup": "streams go on without a pause; the window opens, for all targets at once, when "
    "each has ended its warm-up requests",
    "latency": "closed: requests that were sent and ended inside the window; those in flight when "
    "it closed are cut off and count in no latency. Open: requests that were due inside the "
    "window, which are waited for after it, up to 60 s",
    "schedule": "of an open loop: the same latencies from the instant at which the request was "
    "due, waiting for room included; lateness of sends is the client's own, without that waiting",
    "goodput": "requests that kept to all limits, of all measured ones that ended, failed or "
    "never ended; itl is the request's longest gap, tpot its mean gap; ttft and e2e of an open "
    "loop count from the schedule; requests_per_s over the window",
    "output_tokens_per_s": "all tokens that arrived inside the window, of whatever request, also "
    "of those cut off or broken (vLLM's benchmark counts finished requests only)",
    "total_tokens_per_s": "the same, plus the prompts whose first token arrived inside the window",
    "tokens": "the engine's usage, spread evenly over the request's pieces; events with text "
    "where it reports none",
    "ttft": "request handed to the socket until the first event with text",
    "itl": "each gap between two events with text; events in one read have a gap of 0",
    "tpot": "per request: (last - first event with text) / (output tokens - 1)",
    "e2e": "request handed to the socket until the last event with text",
    "percentiles": "linear between order statistics; p90 from 50 samples, p99 from 500: requests, "
    "and for ITL gaps",
    "prompts": "of a file: as they stand there, in seeded order; otherwise common English words, "
    " seeded, different from the first word on; the number of "
    "words is scaled per target until usage.prompt_tokens is near input_len",
    "errors": "from the first request on, the warm-up too; a stream gives up after 3 in a row, an "
    "open loop after 30",
    "client": "limited when its CPU is above 70 % of a core or its run-queue wait above 2 %, or "
    "more than 1 % of an open loop's sends were begun over 5 ms late",
}


def manifest(
    *,
    started_at: str,
    load: Load,
    targets: Sequence[TargetReport],
    health: ClientHealth,
    pinned: Pinned,
    client_pus: frozenset[int] | None,
    prompts: Mapping[str, object],
) -> dict[str, object]:
    """Names no host, no user and no key."""
    asked = asdict(load) | {"warmup_requests": load.warmups}
    if load.duration_s == math.inf:  # JSON has no infinity.
        asked["duration_s"] = None
    return {
        "started_at": started_at,
        "slotdeck": _version(),
        "python": platform.python_version(),
        "event_loop": "uvloop" if uses_uvloop() else "asyncio",
        "cpu_model": cpu_model(),
        "cpus": os.cpu_count(),
        "client_pus": {
            "asked": None if client_pus is None else sorted(client_pus),
            "got": sorted(pinned.got()),
            "refused": pinned.refused,
        },
        "client_loop_lag_ms": {
            "p50": _ms(health.loop_lag_p50_s),
            "p99": _ms(health.loop_lag_p99_s),
            "max": _ms(health.loop_lag_max_s),
        },
        "client_limits": list(health.limits),
        "load": asked,
        "prompts": dict(prompts),
        "rules": RULES,
        "targets": [_target(target) for target in targets],
    }


def _target(target: TargetReport) -> dict[str, object]:
    return {
        "name": target.name,
        "model": target.model,
        "models_answer": target.models_answer,
        "window_s": target.window_s,
        "cut_off": target.cut_off,
        "gave_up_s": target.gave_up_s,
        "first_error": target.first_error,
        "latencies_let_go": target.dropped,
        "tokens_counted_by": target.counted_by,
        "tokens_per_piece": target.tokens_per_piece,
        "prompt_tokens_mean": target.prompt_tokens,
        "prompt_words": target.prompt_words,
        "prompt_tokens_cached_share": target.cached_share,
        "output_tokens_mean": target.output_tokens,
        "stagger_s": target.stagger_s,
    }


def uses_uvloop() -> bool:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0] == "uvloop"


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return None


def _version() -> str | None:
    try:
        return metadata.version("slotdeck")
    except metadata.PackageNotFoundError:
        return None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)
