"""What the panel costs beside htop and btop, in one run, at one rate and size, each on a pty.

    python benchmarks/panel.py [--seconds 10] [--rate 2] [--keys 40] [--size 200x60] [--json]

The panel runs on made-up machines of 64, 512 and 2048 PUs: its Control hands it snapshots that
were packed before, as a service would send them, a third of the PUs' loads other each time. htop
and btop show this host, which cannot be scaled: their rows say with how many PUs.
CPU is the process's own time (schedstat of its threads), bytes are what it wrote to the terminal,
the first frame is from exec to the first of its words on the screen, a key's latency is from
writing Down or Up to the next byte that comes, pressed when the terminal was quiet.
"""

import argparse
import asyncio
import gc
import json
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.core.topology import Machine

ROOT = Path(__file__).resolve().parent.parent
SHAPES = {64: (2, 16, 2), 512: (2, 128, 2), 2048: (8, 128, 2)}
"""PUs: packages, cores of each, SMT siblings."""
PACKED = 24
"""Moments that repeat; building them costs the panel nothing."""
QUIET_S = 0.06
DOWN, UP = b"\x1b[B", b"\x1b[A"


@dataclass(frozen=True, slots=True)
class Row:
    """One program's figures."""

    program: str
    pus: int
    first_frame_ms: float
    cpu_first_frame_ms: float
    cpu_percent: float
    cpu_ms_per_refresh: float
    kb_per_s: float
    key_p50_ms: float | None
    key_p95_ms: float | None
    rss_mb: float


# The panel, as a process of its own


async def play(pus: int, rate: float, lines: Sequence[bytes]) -> int:
    """The real panel on a Control that replays packed snapshots, and loads nothing beside it."""
    from engine.control import LogLines
    from engine.core.status import Snapshot
    from engine.core.trail import PastFigures
    from engine.wire import unpack
    from tui.__main__ import run
    from tui.app import SlotdeckApp

    machine = the_machine(pus)

    class Replayed:
        """What a panel asks for by itself."""

        async def machine(self) -> "Machine":
            return machine

        async def snapshots(self) -> AsyncIterator[Snapshot]:
            at = 0
            while True:
                yield unpack(lines[at % PACKED], Snapshot)
                at += 1
                await asyncio.sleep(1 / rate)

        async def past(self) -> PastFigures:
            return PastFigures()

        async def log(self, name: str, *, offset: int = -1, limit_bytes: int = 0) -> LogLines:
            return LogLines("", 0)

    control: Any = Replayed()
    first = machine, unpack(lines[0], Snapshot)
    app = SlotdeckApp(control, terminal=sys.stdin.fileno(), first=first)
    return await run(app, dict(os.environ))  # noqa: TID251 - this is the program's entry


def the_machine(pus: int) -> "Machine":
    """Made up, of that many PUs."""
    from tests.tui.machines import made

    packages, cores, siblings = SHAPES[pus]
    return made(packages, 1, cores, smt=siblings)


def write_moments(pus: int, path: Path) -> None:
    """The snapshots that are replayed, made before anything is measured."""
    from tests.tui.scripted_control import snapshot, two_instances

    path.write_bytes(b"".join(_packed(snapshot(the_machine(pus), two_instances()))))


def _packed(first: Any) -> list[bytes]:
    from engine.wire import pack

    dice, lines, busy = random.Random(7), [], list(first.pus_busy)
    for at in range(PACKED):
        for index in range(len(busy)):
            if dice.random() < 0.31:
                busy[index] = min(1.0, max(0.0, (busy[index] or 0.0) + dice.uniform(-0.25, 0.25)))
        each = replace(
            first.instances[0],
            tokens_per_s=replace(first.instances[0].tokens_per_s, output=41.0 + at % 7 / 10),
        )
        moment = replace(
            first, pus_busy=tuple(busy), instances=(each, *first.instances[1:]), happenings=()
        )
        lines.append(pack(moment))
    return lines


# Measuring


class Watched:
    """A program on a pty of its own."""

    def __init__(self, argv: Sequence[str], size: tuple[int, int], env: dict[str, str]) -> None:
        from tests.tui.terminal import Terminal

        self._began = time.perf_counter()
        self.terminal = Terminal.started(argv, size=size, env=env)
        self.bytes = 0
        self._seen = b""

    def take(self, seconds: float) -> int:
        """Read what comes within a time; how many bytes it was. Not parsed: that would cost more
        than what is measured."""
        ready, _, _ = select.select([self.terminal.fd], [], [], seconds)
        if not ready:
            return 0
        try:
            data = os.read(self.terminal.fd, 1 << 16)
        except OSError:
            return 0
        self.bytes += len(data)
        self._seen = (self._seen + data)[-(1 << 18) :]
        return len(data)

    def until(self, words: bytes, limit_s: float = 60.0) -> float:
        """Milliseconds from exec until these bytes were written."""
        while words not in self._seen:
            if time.perf_counter() - self._began > limit_s:
                raise SystemExit(f"{words!r} never came:\n{self._seen[-2000:]!r}")
            self.take(0.05)
        return (time.perf_counter() - self._began) * 1000

    def cpu_ms(self) -> float:
        """What its threads ran so far: exact (schedstat), where `stat` counts ticks of 10 ms."""
        tasks = Path(f"/proc/{self.terminal.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e6

    def rss_mb(self) -> float:
        pages = int(Path(f"/proc/{self.terminal.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def follow(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self.take(left)

    def key_ms(self, key: bytes) -> float:
        """Once the terminal is quiet: from the key to what it brings about."""
        while self.take(QUIET_S):
            pass
        began = time.perf_counter()
        os.write(self.terminal.fd, key)
        while not self.take(1.0):
            if time.perf_counter() - began > 10:
                return float("inf")
        return (time.perf_counter() - began) * 1000


def measure(
    program: str,
    pus: int,
    argv: Sequence[str],
    words: bytes,
    asked: argparse.Namespace,
    env: dict[str, str],
) -> Row:
    """Start it a few times for the first frame; then follow it, then press keys."""
    import statistics  # dear to load, so not by the panel that is measured

    size = tuple(int(each) for each in asked.size.split("x"))
    firsts, costs = [], []
    for _ in range(asked.starts):
        watched = Watched(argv, (size[0], size[1]), env)
        with watched.terminal:
            firsts.append(watched.until(words))
            costs.append(watched.cpu_ms())
    watched = Watched(argv, (size[0], size[1]), env)
    with watched.terminal:
        watched.until(words)
        watched.follow(2.0)  # what follows the first frame
        before, written, began = watched.cpu_ms(), watched.bytes, time.perf_counter()
        watched.follow(asked.seconds)
        took = time.perf_counter() - began
        cpu, written = watched.cpu_ms() - before, watched.bytes - written
        rss = watched.rss_mb()
        keys = [watched.key_ms((DOWN, UP)[at % 2]) for at in range(asked.keys)]
    keys.sort()
    return Row(
        program,
        pus,
        statistics.median(firsts),
        statistics.median(costs),
        cpu / took / 10,
        cpu / (took * asked.rate),
        written / took / 1000,
        statistics.median(keys) if keys else None,
        keys[min(len(keys) - 1, int(len(keys) * 0.95))] if keys else None,
        rss,
    )


def others(asked: argparse.Namespace, folder: Path) -> list[tuple[str, list[str], bytes]]:
    """htop and btop at the same rate, with settings of their own."""
    delay_ms = round(1000 / asked.rate)
    found = []
    if htop := shutil.which("htop"):
        found.append(("htop", [htop, "-d", str(max(1, delay_ms // 100))], b"Load average"))
    if btop := shutil.which("btop"):
        settings = folder / "btop/btop.conf"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(f"update_ms = {max(100, delay_ms)}\ncheck_temp = False\n")
        found.append(("btop", [btop], b"cpu"))
    return found


def best_of(argv: Sequence[str], runs: int = 7) -> float:
    """The quickest run of a command, in ms."""

    def once() -> float:
        began = time.perf_counter()
        subprocess.run(argv, check=True, capture_output=True)
        return (time.perf_counter() - began) * 1000

    return min(once() for _ in range(runs))


def run(asked: argparse.Namespace) -> int:
    here = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as made:
        env = {
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "LANG": "C.UTF-8",
            "PATH": os.defpath,
            "HOME": made,
            "XDG_CONFIG_HOME": made,
        }
        rows = []
        for pus in asked.pus:
            moments = Path(made, f"{pus}.moments")
            write_moments(pus, moments)
            argv = [sys.executable, __file__, "--play", str(pus), "--rate", str(asked.rate)]
            argv += ["--moments", str(moments)]
            rows.append(measure("slotdeck", pus, argv, b"out tok/s", asked, env))
            tell(rows[-1])
        for name, argv, words in others(asked, Path(made)):
            rows.append(measure(name, here, argv, words, asked, env))
            tell(rows[-1])
    starts = {
        "python": best_of([sys.executable, "-c", "pass"]),
        "python with textual.app": best_of([sys.executable, "-c", "import textual.app"]),
    }
    if asked.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "starts_ms": starts}))
        return 0
    print()
    for name, took in starts.items():
        print(f"{name}: {took:.0f} ms to start and end, the best of 7 runs")
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"load averages {load} on {os.cpu_count()} CPUs; {asked.rate:g} Hz, {asked.size} cells")
    return 0


def tell(row: Row) -> None:
    """A line as soon as it is known."""
    key: Callable[[float | None], str] = lambda ms: "–" if ms is None else f"{ms:5.1f}"  # noqa: E731
    print(
        f"{row.program:<9}{row.pus:>5} PUs  first frame {row.first_frame_ms:5.0f} ms "
        f"({row.cpu_first_frame_ms:4.0f} ms CPU)  CPU {row.cpu_percent:5.2f} % "
        f"({row.cpu_ms_per_refresh:5.2f} ms/refresh)  {row.kb_per_s:6.1f} kB/s  "
        f"key p50 {key(row.key_p50_ms)} p95 {key(row.key_p95_ms)} ms  RSS {row.rss_mb:4.0f} MB",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=2.0, help="refreshes a second")
    parser.add_argument("--keys", type=int, default=40)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--size", default="200x60")
    parser.add_argument("--pus", type=int, nargs="*", default=sorted(SHAPES), choices=SHAPES)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--play", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--moments", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.play:
        gc.disable()  # until the first frame stands, as the command does
        lines = asked.moments.read_bytes().splitlines(keepends=True)
        return asyncio.run(play(asked.play, asked.rate, lines))
    return run(asked)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
