"""Error and CPU per token of our streaming client, beside the openai SDK, on a known schedule.

    python benchmarks/load_generator.py [--seconds 4] [--streams 1,16,64]

The fake engine logs when it handed each event to the socket, by the clock that the clients use
too. Errors are therefore client stamp minus server stamp for the same event: TTFT error is that
of (first event - request), gap error that of each inter-token time. The fake engine is Python
and answers late when it is busy, so that the part of the TTFT error that lies before it had read
the request is shown too: most of that is its own. Each client runs in its own
process, and is given the same schedule: first token after 50 ms, then one each 10 ms.
"""

import argparse
import asyncio
import importlib
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from engine.bench import loop_factory
from engine.bench.health import runqueue_wait_s
from engine.core.quantiles import percentile
from engine.drivers import openai_api

FAKE = Path(__file__).parents[1] / "tests" / "fake_openai.py"
TTFT_MS, ITL_MS, TOKENS = 50, 10, 100

HEADER = [
    "client",
    "streams",
    "tokens/s",
    "CPU µs/token",
    "CPU of a core",
    "waited for a core",
    "TTFT error p50 ms",
    "p99 ms",
    "until the engine read p50 ms",
    "event lag p50 ms",
    "p99 ms",
    "gap error p99 ms",
]

Stamps = list[float]
"""When the request was sent, then when each piece came."""
OneRequest = Callable[[str], Awaitable[Stamps]]


def body(prompt: str) -> dict[str, Any]:
    return {"model": "fake", "prompt": prompt, "max_tokens": TOKENS, "stream": True}


def ours(base: str) -> OneRequest:
    async def one(prompt: str) -> Stamps:
        done = await openai_api.stream(
            f"{base}/v1/completions", body(prompt), on_piece=lambda piece: None, idle_timeout_s=30
        )
        return [done.sent_at, *done.piece_times]

    return one


def sdk(base: str) -> OneRequest:
    openai = importlib.import_module("openai")
    client = openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0)

    async def one(prompt: str) -> Stamps:
        sent_at = time.perf_counter()
        events = await client.completions.create(**body(prompt))
        return [sent_at] + [time.perf_counter() async for e in events if e.choices[0].text]

    return one


async def load(one: OneRequest, streams: int, seconds: float) -> dict[str, Any]:
    """Each stream repeats its request; starts are spread over one inter-token time."""
    answers: dict[str, Stamps] = {}
    await one("warm up")
    began_at, began_cpu = time.perf_counter(), time.process_time()
    began_wait = runqueue_wait_s()

    async def stream(index: int) -> None:
        await asyncio.sleep(index * ITL_MS / 1e3 / streams)
        number = 0
        while time.perf_counter() - began_at < seconds:
            prompt = f"{index} {number}"
            answers[prompt] = await one(prompt)
            number += 1

    await asyncio.gather(*(stream(index) for index in range(streams)))
    wall_s = time.perf_counter() - began_at
    waited = runqueue_wait_s()
    return {
        "answers": answers,
        "wall_s": wall_s,
        "cpu_s": time.process_time() - began_cpu,
        "wait_s": waited - began_wait if waited is not None and began_wait is not None else None,
    }


def client_process(kind: str, base: str, streams: int, seconds: float) -> None:
    """What the child does; its answer is one JSON object on stdout."""
    with asyncio.Runner(loop_factory=loop_factory() if kind == "slotdeck+uvloop" else None) as run:
        one = sdk(base) if kind == "openai" else ours(base)
        print(json.dumps(run.run(load(one, streams, seconds))))


def measure(kind: str, streams: int, seconds: float) -> list[str]:
    engine = subprocess.Popen(
        [sys.executable, str(FAKE), "--ttft-ms", str(TTFT_MS), "--itl-ms", str(ITL_MS)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert engine.stdout is not None
        base = f"http://127.0.0.1:{int(engine.stdout.readline())}"
        child = [sys.executable, __file__, "--client", kind, "--base", base]
        told = subprocess.run(
            [*child, "--streams", str(streams), "--seconds", str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        got = json.loads(told.stdout)
        answer = asyncio.run(
            openai_api.get(f"{base}/log", timeout_s=60, limit_bytes=1 << 30)
        ).json()
    finally:
        engine.kill()
        engine.communicate()
    return row(kind, streams, got, {seen["prompt"]: seen for seen in answer["requests"]})


def row(kind: str, streams: int, got: dict[str, Any], seen: dict[str, Any]) -> list[str]:
    ttft: list[float] = []
    unread: list[float] = []
    lags: list[float] = []
    gaps: list[float] = []
    tokens = 0
    for prompt, (sent_at, *stamps) in got["answers"].items():
        truth = seen[prompt]["sent"]
        assert len(stamps) == len(truth) == TOKENS, "a client lost or glued tokens"
        tokens += len(stamps)
        ttft.append((stamps[0] - sent_at) - (truth[0] - seen[prompt]["received_at"]))
        unread.append(seen[prompt]["received_at"] - sent_at)
        lags += [stamp - true for stamp, true in zip(stamps, truth, strict=True)]
        gaps += [
            abs((b - a) - (d - c))
            for (a, b), (c, d) in zip(pairwise(stamps), pairwise(truth), strict=True)
        ]
    wait = got["wait_s"]
    return [
        kind,
        str(streams),
        f"{tokens / got['wall_s']:,.0f}",
        f"{got['cpu_s'] / tokens * 1e6:.0f}",
        f"{got['cpu_s'] / got['wall_s']:.0%}",
        "–" if wait is None else f"{wait / got['wall_s']:.0%}",
        milliseconds(ttft, 0.50),
        milliseconds(ttft, 0.99),
        milliseconds(unread, 0.50),
        milliseconds(lags, 0.50),
        milliseconds(lags, 0.99),
        milliseconds(gaps, 0.99),
    ]


def milliseconds(samples: list[float], share: float) -> str:
    value = percentile(sorted(samples), share)
    return "–" if value is None else f"{value * 1e3:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--streams", default="1,16,64")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--base", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        client_process(options.client, options.base, int(options.streams), options.seconds)
        return
    kinds = ["slotdeck"]
    if loop_factory() is not None:
        kinds.append("slotdeck+uvloop")
    if importlib.util.find_spec("openai") is not None:
        kinds.append("openai")
    rows = [HEADER]
    for streams in options.streams.split(","):
        rows += [measure(kind, int(streams), options.seconds) for kind in kinds]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))


if __name__ == "__main__":
    main()
