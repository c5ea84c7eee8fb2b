"""Start, stop, crash and adopt fake engines over and over: nothing may be left, nothing may grow.

    PYTHONPATH=. python benchmarks/soak.py [--cycles N] [--minutes M] [--kills SHARE] [--seed N]

The first part of the cycles kills the service with SIGKILL now and then, at any moment, and goes
on with the one that adopts; the rest keeps one service, so that its memory can be followed. A
young one grows until its caches and its pool of threads are full: what counts is whether it still
grows over the last two thirds of that part, as the median slope of all pairs of cycles, which a
few odd ones do not move. After each cycle everything is looked at. Exits with 1 if there was a
leak.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from engine.client import ServiceClient
from engine.control import StartInstances, StopInstances
from engine.core.errors import ControlError
from engine.core.status import State
from engine.host.ports import listening_ports
from engine.host.root import HostRoot
from engine.service.orphans import orphans_of
from tests.processes import Home, a_home, alive, eventually_async, fds_of

FLAGS: tuple[list[str], ...] = (
    [],
    ["--fork-child"],
    ["--fork-child", "--double-fork", "--hold-port"],
    ["--titled-child"],
)
MOST_SLOPES = {"file descriptors": 0.002, "threads": 0.002, "KiB of memory": 2.0, "files": 0.005}
"""What may come to one kept service with each cycle. 2 KiB are 1 KiB a start: 100 starts a day
would make 36 MiB in a year."""
FEWEST = 30
"""Cycles, to say anything of a slope."""
ROOT = HostRoot()


@dataclass
class Seen:
    """What was looked at after each cycle."""

    leaks: list[str] = field(default_factory=list)
    acts: Counter[str] = field(default_factory=Counter)
    fds: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    memory_kib: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    shims: set[int] = field(default_factory=set)
    spent_s: list[float] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=1000, metavar="N", help="how many (1000)")
    parser.add_argument(
        "--minutes", type=float, default=30.0, metavar="M", help="at most so long (30)"
    )
    parser.add_argument(
        "--kills", type=float, default=0.3, metavar="SHARE", help="of the cycles (0.3)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the order (1)")
    asked = parser.parse_args()
    with a_home() as home:
        return asyncio.run(soak(home, asked))


async def soak(home: Home, asked: argparse.Namespace) -> int:
    order, seen, begun = random.Random(asked.seed), Seen(), time.monotonic()
    client = await home.connect()
    number, done = 0, 0.0
    kept_since = 0
    while done < 1 and len(seen.leaks) < 20:
        kills = done < asked.kills
        if kills:
            kept_since = number + 1
        at = time.monotonic()
        client = await cycle(home, client, order, seen, kills=kills)
        seen.spent_s.append(time.monotonic() - at)
        await look(home, client, seen, number)
        number += 1
        spent = (time.monotonic() - begun) / 60
        done = max(spent / asked.minutes, number / asked.cycles)
    grown(seen, kept_since)
    report(seen, time.monotonic() - begun)
    return 1 if seen.leaks else 0


async def cycle(
    home: Home, client: ServiceClient, order: random.Random, seen: Seen, *, kills: bool
) -> ServiceClient:
    """Start two engines, do something to them, stop and forget them."""
    end = order.choice(("stop", "crash", "hang", "adopt", "adopt anywhere") if kills else ENDS)
    seen.acts[end] += 1
    wishes = [
        {"name": name, "flags": order.choice(FLAGS), "slot": f"core:{core}", "stop_grace_s": 1.0}
        for core, name in enumerate("ab")
    ]
    await home.apply(client, home.layout(*wishes))
    if end == "adopt anywhere":
        await asyncio.sleep(order.uniform(0, 0.4))  # not to wait for something: to cut somewhere
        client = await killed(home)
    await ready(home, client)
    note_shims(home, seen)
    if end == "adopt":
        client = await killed(home)
        await ready(home, client)
    if end in ("crash", "hang"):
        pid = next(one.pid for one in (await client.snapshot()).instances if one.name == "a")
        assert pid is not None
        os.kill(pid, signal.SIGKILL if end == "crash" else signal.SIGSTOP)
        if end == "crash":
            await home.until_state(client, "a", State.FAILED)
            await home.until(client, lambda now: now["a"].pid is None)
            with contextlib.suppress(ControlError):
                await home.apply(client, StartInstances(("a",)))
    names = tuple(one.name for one in (await client.snapshot()).instances)
    await home.apply(client, StopInstances(names, forget=True))
    await home.until(client, lambda now: not now)
    return client


ENDS = ("stop", "crash", "hang")


async def ready(home: Home, client: ServiceClient) -> None:
    await home.until(
        client,
        lambda now: len(now) == 2 and all(one.state is State.READY for one in now.values()),
        within_s=60,
    )


async def killed(home: Home) -> ServiceClient:
    """The next service after a SIGKILL to this one."""
    await home.kill_service()
    return await home.connect()


def note_shims(home: Home, seen: Seen) -> None:
    rows = home.journal()["instances"]
    seen.shims |= {row["launched"]["shim_pid"] for row in rows if row["launched"]}


async def look(home: Home, client: ServiceClient, seen: Seen, number: int) -> None:
    """Whatever is still there after the cycle is a leak."""
    service = (await client.snapshot()).service_pid
    with contextlib.suppress(ChildProcessError):  # services that we started and killed
        while os.waitpid(-1, os.WNOHANG)[0]:  # noqa: ASYNC222
            pass

    def gone(what: str, left: object) -> None:
        if left:
            seen.leaks.append(f"cycle {number}: {what}: {left}")

    with contextlib.suppress(AssertionError):
        await eventually_async(
            lambda: home.processes() == [service] and not any(map(alive, seen.shims)), within_s=5
        )
    gone("processes", [pid for pid in home.processes() if pid != service])
    gone("launchers", [pid for pid in seen.shims if alive(pid)])
    gone("orphans", [one.pid for one in orphans_of(ROOT, home.paths)])
    first, last = home.ports
    gone("ports", [port for port in listening_ports(ROOT) if first <= port <= last])
    told = [one.text for one in (await client.snapshot()).happenings]
    gone("bugs", [text for text in told if "has a bug" in text])
    seen.shims.clear()
    seen.fds.append(fds_of(service))
    seen.threads.append(threads_of(service))
    seen.memory_kib.append(private_kib(service))
    seen.files.append(sum(len(files) for _, _, files in os.walk(home.folder)))


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def private_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def grown(seen: Seen, kept_since: int) -> None:
    """Of the one service that was kept: how much comes with each cycle, once it is warm."""
    measured = {
        "file descriptors": seen.fds,
        "threads": seen.threads,
        "KiB of memory": seen.memory_kib,
        "files": seen.files,
    }
    median = statistics.median
    for name, most in MOST_SLOPES.items():
        kept = measured[name][kept_since:]
        values = kept[len(kept) // 3 :]
        if len(values) < FEWEST:
            print(f"{name}: too few cycles to tell whether they grow")
            continue
        more = slope(values)
        first, warm, last = (median(part) for part in (kept[:9], values[:9], values[-9:]))
        print(
            f"{name:16} {more:+8.4f} a cycle, at most {most:g}: from {first:g} over {warm:g} "
            f"to {last:g} in {len(kept)} cycles"
        )
        if more > most:
            seen.leaks.append(f"{name} grow by {more:.4f} a cycle, at most {most:g} are allowed")


def slope(values: list[int]) -> float:
    """The median of the slopes of all pairs (Theil and Sen)."""
    pairs = itertools.combinations(enumerate(values), 2)
    return statistics.median((b - a) / (j - i) for (i, a), (j, b) in pairs)


def report(seen: Seen, spent_s: float) -> None:
    acts = ", ".join(f"{count} {act}" for act, count in sorted(seen.acts.items()))
    middle = statistics.median(seen.spent_s)
    print(f"{len(seen.spent_s)} cycles of two engines in {spent_s:.0f} s ({middle:.2f} s each)")
    print(f"ended by: {acts}")
    print(
        f"service at rest: {seen.fds[-1]} file descriptors, {seen.memory_kib[-1] / 1024:.1f} MiB"
    )
    print(f"files of this user: {seen.files[-1]} (most {max(seen.files)})")
    print("\n".join(seen.leaks) or "no leak")


if __name__ == "__main__":
    sys.exit(main())
