"""Decoding on one core: the worker's number formats, one stream and several, against transformers.

Run: python benchmarks/worker.py [--rounds 5] [--tokens 48] [--isa native,avx2] [--streams 4,16]
Each round measures every arm once, in an order that turns from round to round. CPU time counts,
not the clock, so that a neighbour on the machine costs little; ratios are medians over rounds.
Each instruction set is measured by a process of its own, for the baseline as for the worker. The
ipex engine takes part where `slotdeck engines install ipex` has put it.
"""

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.engines.environments import python_of  # noqa: E402
from engine.host.paths import Paths  # noqa: E402
from tests.bundled_model import bundled_model  # noqa: E402

PROMPT = "Once upon a time"
BASELINE = "transformers float32"
ISAS = {
    "native": {},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "DNNL_MAX_CPU_ISA": "AVX2",
        "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
}
"""What keeps torch's own kernels and its three libraries from using more."""
WORKERS = {
    "worker float32": ["--dtype", "float32"],
    "worker bfloat16": ["--dtype", "bfloat16"],
    "worker int8 (float32)": ["--dtype", "float32", "--weight-only", "int8"],
    "worker int8 (bfloat16)": ["--dtype", "bfloat16", "--weight-only", "int8"],
}
IPEX = {
    "ipex bfloat16": ["--dtype", "bfloat16"],
    "ipex int8 (bfloat16)": ["--dtype", "bfloat16", "--weight-only", "int8"],
    "ipex int4 (bfloat16)": ["--dtype", "bfloat16", "--weight-only", "int4"],
}


@dataclass
class Arm:
    name: str
    seconds_per_token: Callable[[int], float]
    bytes_per_token: float
    rss_bytes: Callable[[], float]
    start_s: float
    together: Callable[[int, int], float] | None = None
    """CPU seconds a token with so many streams at once."""


class WorkerArm:
    def __init__(self, model: Path, flags: list[str], log: int, python: str) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self._port = sock.getsockname()[1]
        program = str(ROOT / "engine" / "worker" / "__main__.py")
        command = [python, "-I", "-u", program, "--model", str(model), "--threads", "1"]
        began = time.monotonic()
        # Or a story that was told before would be told from its end.
        flags = [*flags, "--no-enable-prefix-caching"]
        self.process = subprocess.Popen([*command, "--port", str(self._port), *flags], stderr=log)
        while not self._is_ready():
            if self.process.poll() is not None:
                raise SystemExit("A worker ended before it was ready; its message stands above.")
            time.sleep(0.1)
        self.start_s = time.monotonic() - began

    def rss_bytes(self) -> float:
        return self.metric("process_resident_memory_bytes")

    def _is_ready(self) -> bool:
        try:
            return self._ask("GET", "/health", None)[0] == 200
        except OSError:
            return False

    def _ask(self, method: str, path: str, body: str | None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=300)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        for line in self._ask("GET", "/metrics", None)[1].splitlines():
            if line.startswith(name):
                return float(line.split()[-1])
        raise KeyError(name)

    def seconds_per_token(self, tokens: int, streams: int = 1) -> float:
        """CPU time of the whole process, HTTP and all; the difference of a long and a short
        answer leaves out the prefill."""
        return (self._cpu(tokens + 8, streams) - self._cpu(8, streams)) / tokens / streams

    def _cpu(self, tokens: int, streams: int) -> float:
        fields: dict[str, object] = {"max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        fields["prompt"] = [PROMPT] * streams
        before = self._cpu_now()
        status, body = self._ask("POST", "/v1/completions", json.dumps({**fields, "stream": True}))
        assert status == 200, body
        return self._cpu_now() - before

    def _cpu_now(self) -> float:
        """To the nanosecond, unlike /proc/PID/stat."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def plain_arm(model: Path) -> Callable[[int], float]:
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    module = transformers.AutoModelForCausalLM.from_pretrained(str(model), dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(model))
    inputs = tokenizer(PROMPT, return_tensors="pt")

    def cpu(tokens: int) -> float:
        before = time.process_time()
        with torch.inference_mode():
            module.generate(
                **inputs, do_sample=False, min_new_tokens=tokens, max_new_tokens=tokens
            )
        return time.process_time() - before

    return lambda tokens: (cpu(tokens + 8) - cpu(8)) / tokens


def own_rss() -> float:
    status = Path("/proc/self/status").read_text()
    return float(status.partition("VmRSS:")[2].split()[0]) * 1024


def read_bandwidth() -> float:
    """Bytes a second that one core reads from 512 MiB, best of several."""
    import torch

    values = torch.ones(128 * 1024 * 1024, dtype=torch.float32)
    best = float("inf")
    for _ in range(7):
        before = time.process_time()
        values.sum()
        best = min(best, time.process_time() - before)
    return float(values.nbytes / best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--isa", default=",".join(ISAS), help="default: %(default)s")
    parser.add_argument("--streams", default="4,16", help="default: %(default)s")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if not asked.here:
        for name in asked.isa.split(","):
            words = ["--here", "--rounds", str(asked.rounds), "--tokens", str(asked.tokens)]
            words += ["--streams", asked.streams]
            environment = {**os.environ, **ISAS[name]}  # noqa: TID251 -- the program's entry
            command = [sys.executable, __file__, *words]
            subprocess.run(command, env=environment, check=True)
        return
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    model = bundled_model()
    home = Paths.of(dict(os.environ)).data  # noqa: TID251 -- the program's entry
    wanted = [(name, flags, sys.executable) for name, flags in WORKERS.items()]
    if (ipex := python_of("ipex", home)) is not None:
        wanted += [(name, [*flags, "--engine", "ipex"], str(ipex)) for name, flags in IPEX.items()]
    servers = {}
    try:
        for name, flags, python in wanted:
            servers[name] = WorkerArm(model, flags, sys.stderr.fileno(), python)
        streams = [int(word) for word in asked.streams.split(",")]
        report(servers, model, rounds=asked.rounds, tokens=asked.tokens, streams=streams)
    finally:
        for server in servers.values():
            server.process.terminate()
            server.process.wait(timeout=30)


def report(
    servers: dict[str, WorkerArm], model: Path, *, rounds: int, tokens: int, streams: list[int]
) -> None:
    import torch

    arms = [
        Arm(
            name,
            server.seconds_per_token,
            server.metric("slotdeck:token_read_bytes"),
            server.rss_bytes,
            server.start_s,
            server.seconds_per_token,
        )
        for name, server in servers.items()
    ]
    began = time.monotonic()
    plain = plain_arm(model)
    plain(4)
    float_bytes = arms[0].bytes_per_token
    arms.insert(0, Arm(BASELINE, plain, float_bytes, own_rss, time.monotonic() - began))
    for arm in arms:
        arm.seconds_per_token(4)
    measured: dict[str, list[float]] = {arm.name: [] for arm in arms}
    batched: dict[tuple[str, int], list[float]] = {}
    bandwidths = [read_bandwidth()]
    for turn in range(rounds):
        shift = turn % len(arms)
        for arm in arms[shift:] + arms[:shift]:
            measured[arm.name].append(arm.seconds_per_token(tokens))
            if arm.together is not None:
                for count in streams:
                    found = arm.together(tokens, count)
                    batched.setdefault((arm.name, count), []).append(found)
        bandwidths.append(read_bandwidth())
    bandwidth = max(bandwidths)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, one core")
    print(f"read bandwidth {bandwidth / 1e9:.1f} GB/s, {rounds} rounds of {tokens} tokens")
    print(
        f"{'arm':24}{'CPU ms/token':>13}{'tokens/s':>10}{'ratio':>8}{'roofline':>10}"
        f"{'RSS MB':>8}{'start s':>9}" + "".join(f"{f'x{count} tok/s':>12}" for count in streams)
    )
    base = measured[BASELINE]
    for arm in arms:
        times = measured[arm.name]
        middle = statistics.median(times)
        ratio = statistics.median(one / other for one, other in zip(base, times, strict=True))
        share = arm.bytes_per_token / bandwidth / middle
        print(
            f"{arm.name:24}{middle * 1e3:13.1f}{1 / middle:10.1f}{ratio:8.2f}{share:10.0%}"
            f"{arm.rss_bytes() / 1e6:8.0f}{arm.start_s:9.1f}"
            + "".join(
                f"{1 / statistics.median(batched[arm.name, count]):12.1f}"
                for count in (streams if arm.together is not None else ())
            )
        )
    print("ratio: speed against plain transformers; roofline: bytes of weights read a token / ")
    print("read bandwidth, as a share of the time taken; start: until /health answered;")
    print("xN: tokens of all streams together in a second of the core's time\n")


if __name__ == "__main__":
    main()
