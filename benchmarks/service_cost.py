"""What the service itself costs beside engines: CPU time with a panel attached, and without one.

    PYTHONPATH=. python benchmarks/service_cost.py [--seconds S] [--pus N] [--engines N]

The service is the real one; so are the engines' processes, whose /metrics is the recorded answer
of a vLLM server with counters that grow. The machine is made up: its /sys is written out, and its
/proc is this one's, with a `stat` of that many PUs that moves on, and with as many kernel threads
more as such a machine has. The engines were started before, and are adopted. What the service used
is the kernel's own figure (schedstat). Exits with 1 where it is over the budget.
"""

import argparse
import asyncio
import random
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

from engine.client import ServiceClient
from engine.core.layout import parse_layout
from engine.core.lifecycle import Life
from engine.core.status import State
from engine.core.synthetic import parse_synthetic
from engine.host.machine import read_machine
from engine.host.ports import listening_ports
from engine.host.process import read_stat
from engine.host.root import HostRoot
from engine.host.whose import Here
from engine.service.journal import SCHEMA, JournalPage, JournalRow, Running, write_journal
from engine.service.launcher import Launched
from engine.service.orders import Surroundings
from engine.service.planning import plan_layout
from engine.service.processes import FOLDER, MARK
from tests.processes import FAKE_ENGINE, Home, a_home
from tests.sysfs_tree import write_machine

ATTACHED, DETACHED = 0.01, 0.002
"""Shares of one core."""
KERNEL_THREADS_PER_PU = 6
METRICS = Path("tests/captures/vllm-0.32-cpu.metrics.txt")
COUNTER = re.compile(r"^([\w:]+_(?:total|bucket|count|sum)(?:\{.*\})?) (\S+)$", re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="each way (60)")
    parser.add_argument("--pus", type=int, default=256, metavar="N", help="of the machine (256)")
    parser.add_argument("--engines", type=int, default=8, metavar="N", help="how many (8)")
    asked = parser.parse_args()
    with a_home() as home:
        world = World(home, asked.pus)
        world.turn()
        world.start_engines(asked.engines)
        return asyncio.run(measure(home, world, asked.seconds))


class World:
    """A made-up machine that lives: its files move on with each turn."""

    def __init__(self, home: Home, pus: int) -> None:
        self._home = home
        self._chance = random.Random(1)
        self._ticks = [(0, 0)] * pus
        self._turn = 0
        self._recorded = METRICS.read_text()
        self._metrics = home.folder / "metrics.txt"
        self.path = home.folder / "machine"
        spec = f"pack:2 numa:2 core:{pus // 8} pu:2 mem:64GiB"
        self.root = write_machine(parse_synthetic(spec), self.path)
        self.pus = pus

    def turn(self) -> None:
        """A second has passed: ticks, and what the engines have counted."""
        self._turn += 1
        lines = ["cpu  0 0 0 0 0 0 0 0 0 0"]
        for pu, (busy, idle) in enumerate(self._ticks):
            more = self._chance.randint(0, 100)
            self._ticks[pu] = busy + more, idle + 100 - more
            lines.append(f"cpu{pu} {busy + more} 0 0 {idle + 100 - more} 0 0 0 0 0 0")
        _replace(self.path / "proc/stat", "\n".join([*lines, "intr 0", "ctxt 0", ""]))
        for node in range(4):
            counted = "".join(
                f"{name} {self._turn * 1000}\n"
                for name in ("numa_hit", "numa_miss", "local_node", "other_node")
            )
            _replace(self.path / f"sys/devices/system/node/node{node}/numastat", counted)
        _replace(
            self._metrics,
            COUNTER.sub(lambda one: f"{one[1]} {float(one[2]) * self._turn}", self._recorded),
        )

    def start_engines(self, count: int) -> None:
        """As an earlier service did, with a journal that says so."""
        first, _ = self._home.ports
        wishes = "".join(
            f"[[instance]]\nname = 'e{number}'\nport = {first + number}\n"
            for number in range(count)
        )
        words = (
            f"[defaults]\nengine = 'command'\ncommand = ['server']\nstrategy = 'spread'\n{wishes}"
        )
        layout = parse_layout(f"schema = 1\nname = 'cost'\n{words}", name="cost")
        around = Surroundings({}, self._home.paths.models)
        plan = plan_layout(read_machine(self.root), layout, around, base="/")
        assert not plan.refusals, plan.refusals
        rows = []
        for one in plan.planned:
            mark, name = uuid.uuid4().hex, one.wish.name
            folder = self._home.paths.instance(name)
            folder.mkdir(parents=True)
            flags = ["--metrics", str(self._metrics), "--fork-child", "--touch-mib", "64"]
            port = one.placement.port
            engine = subprocess.Popen(
                [sys.executable, "-S", str(FAKE_ENGINE), "--port", str(port), *flags],
                env={**self._home.environment, MARK: mark, FOLDER: str(folder)},
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            while port not in listening_ports(HostRoot()):
                time.sleep(0.01)
            stat = read_stat(HostRoot(), engine.pid)
            assert stat is not None
            launched = Launched(engine.pid, stat.started_ticks, engine.pid, stat.started_ticks, "")
            life = Life(State.READY, 0, "generated a token")
            running = Running(one.wish, one.placement)
            rows.append(
                JournalRow(
                    one.wish, one.placement, "/", life, mark, launched, None, running=running
                )
            )
        for entry in Path("/proc").iterdir():
            if entry.name not in ("self", "stat", "thread-self"):
                (self.path / "proc" / entry.name).symlink_to(entry)
        for number in range(self.pus * KERNEL_THREADS_PER_PU):
            (self.path / f"proc/{5_000_000 + number}").symlink_to("/proc/2")
        (self.path / "proc/self/ns").symlink_to("/proc/self/ns")
        (self.path / "etc").symlink_to("/etc")
        here = Here.of(HostRoot())
        page = JournalPage(SCHEMA, here.boot, rows, here.pids, here.host)
        write_journal(self._home.paths.journal, page)


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


async def measure(home: Home, world: World, seconds: float) -> int:
    arguments = f"root=HostRoot(Path({str(world.path)!r})), idle_exit_s=600"
    imports = "from engine.host.root import HostRoot; from pathlib import Path"
    client = await home.served(arguments, launcher=imports)
    snapshot = await home.until(
        client, lambda now: bool(now) and all(one.verified is not None for one in now.values())
    )
    service = snapshot.service_pid
    turning = asyncio.create_task(turns(world))
    watching = asyncio.create_task(watch(client))
    await asyncio.sleep(5)  # not to wait for something: the first samples cost more
    attached = await share_of(service, seconds)
    figures = (await client.snapshot()).instances
    assert all(one.tokens_per_s.output is not None for one in figures), figures
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await asyncio.sleep(1)
    detached = await share_of(service, seconds)
    turning.cancel()
    await asyncio.gather(turning, return_exceptions=True)
    processes = sum(entry.name.isdigit() for entry in (world.path / "proc").iterdir())
    print(
        f"{world.pus} PUs, {len(figures)} engines, {processes} processes, {seconds:g} s each way"
    )
    over = False
    for what, share, most in (("attached", attached, ATTACHED), ("alone", detached, DETACHED)):
        print(f"{what:9} {share:7.3%} of one core, budget {most:.1%}")
        over = over or share > most
    return int(over)


async def turns(world: World) -> None:
    while True:
        await asyncio.sleep(1)
        world.turn()


async def watch(client: ServiceClient) -> None:
    async for _ in client.snapshots():
        pass


async def share_of(pid: int, seconds: float) -> float:
    """What it runs of one core, all threads, over so many seconds."""
    used, at = run_s(pid), time.monotonic()
    await asyncio.sleep(seconds)
    return (run_s(pid) - used) / (time.monotonic() - at)


def run_s(pid: int) -> float:
    """Seconds on a PU (sched-stats): exact, where the ticks of `stat` are sampled."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


if __name__ == "__main__":
    sys.exit(main())
