"""Is the load generator right? Its stamps against a server of exactly known timing, and its cost.

    python benchmarks/loadgen.py [--seconds 4] [--streams 1,16,64,256] [--fifo]
    python benchmarks/loadgen.py --tools --tool-path ENVIRONMENT …

Error is a client's figure minus the server's own for the same event: of the TTFT (first chunk sent
minus request arrived), of each gap, and how long after its sending a chunk was stamped (lag). Each
client runs in its own process. `--fifo` (root) lets client and server run before everybody else,
each on a CPU of its own: without it, on a busy machine, it is mostly the machine that is measured.
That a request arrived is the kernel's stamp: where many come at once, the server takes
milliseconds to read them all ("read after"), which is no error of the client's.
The last table is of whole programs, from their start to what they print: ours, and with `--tools`
the public load generators where they are installed. They may use all CPUs, and with `--fifo` are
only favoured, since they are several processes.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import truth_server
from engine.bench import loop_factory
from engine.bench.health import runqueue_wait_s
from engine.bench.outside.finding import TOOLS, find
from engine.core.errors import UsageError
from engine.core.quantiles import percentile
from engine.drivers import openai_api

HERE = Path(__file__)
TOKENS = 100
TOKENIZER = Path("~/.cache/slotdeck/models/smollm2-135m").expanduser()
RIGHT_TTFT_S, RIGHT_LAG_S = 0.0026, 0.0027
"""At p99: up to there a client is right (a rule made for a server of 1 ms timers)."""

ERRORS = (
    *("client", "streams", "ITL ms", "tokens/s", "CPU µs/token", "CPU of a core", "waited"),
    *(
        "TTFT error p50 ms",
        "p99 ms",
        "read after p99 ms",
        "lag p50 ms",
        "p99 ms",
        "gap error p99 ms",
        "right",
    ),
)
WHOLE = (
    *("tool", "streams", "first request s", "first of the load s", "TTFT p50 told−true ms"),
    *("p99", "TPOT p50 told−true ms", "ITL p99 told−true ms", "CPU µs/token"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--streams", default="1,16,64,256")
    parser.add_argument("--fifo", action="store_true", help="before everybody else (root)")
    parser.add_argument("--tools", action="store_true", help="the public ones too")
    parser.add_argument("--tool-path", action="append", default=[], metavar="ENVIRONMENT")
    parser.add_argument("--tokenizer", default=str(TOKENIZER), metavar="DIR")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--base", help=argparse.SUPPRESS)
    parser.add_argument("--fifo-cpu", type=int, help=argparse.SUPPRESS)
    truth_server.arguments(parser)
    options = parser.parse_args()
    if options.client:
        _client(options)
        return
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs\n")
    kinds = ["asyncio"] if loop_factory() is None else ["uvloop", "asyncio"]
    counts = [int(word) for word in options.streams.split(",")]
    rows: list[tuple[str, ...]] = [ERRORS]
    for streams in counts:
        rows += [_errors(kind, streams, options, options.itl_ms) for kind in kinds]
    _print(rows)
    print("\nHow much one process takes, with more tokens/s of 64 streams:\n")
    rows = [ERRORS]
    for itl_ms in (4.0, 2.5, 1.6, 1.0):
        rows.append(_errors(kinds[0], 64, options, itl_ms))
        if rows[-1][-1] == "no":
            break
    _print(rows)
    print("\nAt a constant rate of 40 requests/s, as the server saw them arrive:\n")
    _print([("rate/s", "gap CV", "largest gap ms"), _fidelity(options)])
    print("\nWhole programs, from their start on; as told minus as it was:\n")
    _print([WHOLE, *_programs(options, counts)])


@contextmanager
def _server(options: argparse.Namespace, itl_ms: float) -> Iterator[str]:
    command = [sys.executable, str(HERE.with_name("truth_server.py"))]
    for name in ("ttft_ms", "jitter_ms", "drift", "stall_every", "stall_ms", "tokens_per_chunk"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    command += ["--itl-ms", str(itl_ms), *_fifo(options, 0)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


def _fifo(options: argparse.Namespace, which: int) -> list[str]:
    cpus = sorted(os.sched_getaffinity(0))
    return ["--fifo-cpu", str(cpus[which % len(cpus)])] if options.fifo else []


def _log(base: str) -> dict[str, Any]:
    answer = asyncio.run(openai_api.get(f"{base}/log", timeout_s=60, limit_bytes=1 << 30))
    told: dict[str, Any] = answer.json()
    return told


def _client(options: argparse.Namespace) -> None:
    """What the child does; its answer is one JSON object on stdout."""
    truth_server.urgent(options.fifo_cpu)
    factory = loop_factory() if options.client == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as run:
        streams = int(options.streams)
        print(json.dumps(run.run(_load(options.base, streams, options.seconds, options.itl_ms))))


async def _load(base: str, streams: int, seconds: float, itl_ms: float) -> dict[str, Any]:
    """Each stream repeats its request; starts are spread over one inter-token time."""
    answers: dict[str, list[float]] = {}

    async def one(prompt: str) -> list[float]:
        done = await openai_api.stream(
            f"{base}/v1/completions",
            {"model": "truth", "prompt": prompt, "max_tokens": TOKENS, "stream": True},
            on_piece=lambda piece: None,
            idle_timeout_s=30,
        )
        return [done.sent_at, *done.piece_times]

    await one("warm up")
    began_at, began_cpu, began_wait = time.perf_counter(), time.process_time(), runqueue_wait_s()

    async def stream(index: int) -> None:
        await asyncio.sleep(index * itl_ms / 1e3 / streams)
        number = 0
        while time.perf_counter() - began_at < seconds:
            answers[f"{index} {number}"] = await one(f"{index} {number}")
            number += 1

    await asyncio.gather(*(stream(index) for index in range(streams)))
    return {
        "answers": answers,
        "wall_s": time.perf_counter() - began_at,
        "cpu_s": time.process_time() - began_cpu,
        "wait_s": (runqueue_wait_s() or 0.0) - (began_wait or 0.0),
    }


def _errors(
    kind: str, streams: int, options: argparse.Namespace, itl_ms: float
) -> tuple[str, ...]:
    with _server(options, itl_ms) as base:
        child = [sys.executable, str(HERE), "--client", kind, "--base", base]
        child += ["--streams", str(streams), "--seconds", str(options.seconds)]
        child += ["--itl-ms", str(itl_ms), *_fifo(options, 1)]
        told = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True)
        got, seen = json.loads(told.stdout), _log(base)
    ttft, unread, lags, gaps, chunks = [], [], [], [], 0
    for prompt, (sent_at, *stamps) in got["answers"].items():
        truth = seen[prompt]["sent"]
        assert len(stamps) == len(truth), "a chunk was lost or invented"
        chunks += len(stamps)
        arrived_at = seen[prompt]["arrived_at"]
        ttft.append((stamps[0] - sent_at) - (truth[0] - arrived_at))
        unread.append(seen[prompt]["received_at"] - arrived_at)
        lags += [stamp - true for stamp, true in zip(stamps, truth, strict=True)]
        gaps += [
            abs((b - a) - (d - c))
            for (a, b), (c, d) in zip(pairwise(stamps), pairwise(truth), strict=True)
        ]
    right = _p(ttft, 0.99) <= RIGHT_TTFT_S and _p(lags, 0.99) <= RIGHT_LAG_S
    tokens = chunks * options.tokens_per_chunk
    return (
        kind,
        str(streams),
        f"{itl_ms:g}",
        f"{tokens / got['wall_s']:,.0f}",
        f"{got['cpu_s'] / tokens * 1e6:.0f}",
        f"{got['cpu_s'] / got['wall_s']:.0%}",
        f"{got['wait_s'] / got['wall_s']:.1%}",
        *(f"{_p(ttft, share) * 1e3:.2f}" for share in (0.5, 0.99)),
        f"{_p(unread, 0.99) * 1e3:.2f}",
        *(f"{_p(lags, share) * 1e3:.2f}" for share in (0.5, 0.99)),
        f"{_p(gaps, 0.99) * 1e3:.2f}",
        "yes" if right else "no",
    )


def _fidelity(options: argparse.Namespace) -> tuple[str, ...]:
    with _server(options, options.itl_ms) as base:
        words = [base, "--rate", "40", "--arrival", "constant", "--output-len", "10"]
        _bench([*words, "--duration", "10", "--seed", "1"], options)
        seen = _log(base)
    arrived = sorted(one["arrived_at"] for one in seen.values() if one["tokens"] == 10)
    spacing = [later - earlier for earlier, later in pairwise(arrived)]
    mean = statistics.fmean(spacing)
    cv = statistics.stdev(spacing) / mean
    return f"{1 / mean:.2f}", f"{cv:.3f}", f"{max(spacing) * 1e3:.0f}"


def _bench(words: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """Our own command, or what it has another tool do."""
    favoured = ["--favoured"] if options.fifo else []
    command = [sys.executable, "-c", _PROGRAM, *favoured, "bench", *words, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


_PROGRAM = """
import os, sys
from engine.cli.main import main
if sys.argv[1] == "--favoured":
    del sys.argv[1]
    os.nice(-15)
sys.exit(main())
"""


def _programs(options: argparse.Namespace, counts: Sequence[int]) -> Iterator[tuple[str, ...]]:
    environment = dict(os.environ)  # noqa: TID251 - the program's entry
    for streams in counts:
        yield _whole("slotdeck", streams, [], options)
        for name, tool in TOOLS.items() if options.tools else ():
            for place in [*options.tool_path, None]:
                try:
                    program = find(tool, place, environment)
                except UsageError:
                    continue
                words = ["--backend", name, "--backend-path", str(program)]
                words += ["--tokenizer", options.tokenizer]
                yield _whole(name, streams, words, options)
                break


def _whole(
    name: str, streams: int, words: Sequence[str], options: argparse.Namespace
) -> tuple[str, ...]:
    """Figures as the tool tells them, beside those of the same requests as the server saw them."""
    with _server(options, options.itl_ms) as base:
        each_s = (options.ttft_ms + TOKENS * options.itl_ms) / 1e3
        requests = streams * max(1, round(options.seconds / each_s))
        began = time.monotonic()
        load = ["--concurrency", str(streams), "--requests", str(requests), "--seed", "1"]
        told = _bench([base, *load, "--output-len", str(TOKENS), *words], options)
        everything = list(_log(base).values())
    seen = [one for one in everything if len(one["sent"]) > 8]  # Probes are shorter.
    (row,) = told["targets"]
    ttft = [(one["sent"][0] - one["arrived_at"]) * 1e3 for one in seen]
    gaps = [(b - a) * 1e3 for one in seen for a, b in pairwise(one["sent"])]
    each = [(one["sent"][-1] - one["sent"][0]) * 1e3 / (len(one["sent"]) - 1) for one in seen]
    # Another tool is started by ours, once our probes have been answered.
    probes = [one["sent"][-1] for one in everything if len(one["sent"]) <= 8]
    started = began if name == "slotdeck" else max(probes)
    first_s = min(one["arrived_at"] for one in everything if one["arrived_at"] > started)
    of_load_s = min(one["arrived_at"] for one in seen)

    def off(value: float | None, true: float) -> str:
        return "–" if value is None else f"{value - true:+.2f}"

    cpu = ""
    if name == "slotdeck":
        window_s = told["manifest"]["targets"][0]["window_s"]
        tokens = row["output_tokens_per_s"] * window_s
        cpu = f"{told['client']['cpu_share'] * window_s / tokens * 1e6:.0f}"
    return (
        name,
        str(streams),
        f"{first_s - started:.2f}",
        f"{of_load_s - started:.2f}",
        off(row["ttft_ms"]["p50"], _p(ttft, 0.5)),
        off(row["ttft_ms"]["p99"], _p(ttft, 0.99)),
        off(row["tpot_ms"]["p50"], _p(each, 0.5)),
        off(row["itl_ms"]["p99"], _p(gaps, 0.99)),
        cpu or "–",
    )


def _p(samples: Sequence[float], share: float) -> float:
    value = percentile(sorted(samples), share)
    assert value is not None, "nothing was measured"
    return value


def _print(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))


if __name__ == "__main__":
    main()
