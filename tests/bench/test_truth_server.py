"""The server of known timing: its schedule, and that the load generator agrees with its log."""

import argparse
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import truth_server
from engine.bench import Load, Target, run
from engine.drivers import openai_api

ROOT = Path(__file__).parents[2]


def dues(*words: str, chunks: int = 6) -> list[float]:
    parser = argparse.ArgumentParser()
    truth_server.arguments(parser)
    at = truth_server.schedule(parser.parse_args(words), chunks, random.Random(1))
    return [round(one * 1e3, 6) for one in at]


def test_a_schedule_has_what_was_asked() -> None:
    assert dues() == [50, 60, 70, 80, 90, 100]
    assert dues("--stall-every", "2", "--stall-ms", "100") == [50, 60, 170, 180, 290, 300]
    assert dues("--drift", "0.1", chunks=4) == [50, 61, 73, 86]
    late = [one - true for one, true in zip(dues("--jitter-ms", "5"), dues(), strict=True)]
    assert all(0 <= one <= 5 for one in late)
    assert len(set(late)) == 6


@pytest.fixture
def target() -> Iterator[Target]:
    words = ["--ttft-ms", "40", "--itl-ms", "8", "--tokens-per-chunk", "2"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "benchmarks/truth_server.py"), *words],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield Target("truth", f"http://127.0.0.1:{int(process.stdout.readline())}")
    process.kill()
    process.communicate()


async def test_the_load_generator_agrees_with_the_servers_log(target: Target) -> None:
    began = time.monotonic()
    load = Load(concurrency=4, output_len=20, duration_s=None, requests=12)
    (row,) = (await run([target], load)).targets
    answer = await openai_api.get(f"{target.url}/log", timeout_s=5)
    seen = [one for one in answer.json().values() if one["tokens"] == 20]
    ttft = statistics.median(one["sent"][0] - one["received_at"] for one in seen)
    gaps = statistics.median(b - a for one in seen for a, b in pairwise(one["sent"]))
    assert all(len(one["sent"]) == 10 for one in seen[:12])
    assert (row.requests, row.errors, row.output_tokens, row.tokens_per_piece) == (
        12,
        0,
        20.0,
        2.0,
    )
    assert min(one["sent"][0] - one["received_at"] for one in seen) >= 0.04, "never early"
    assert all(began <= one["arrived_at"] <= one["received_at"] for one in seen)
    assert row.ttft.p50 == pytest.approx(ttft, abs=0.01)
    assert row.itl.p50 == pytest.approx(gaps, abs=0.005)
