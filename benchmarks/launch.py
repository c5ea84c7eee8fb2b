"""From the request to the exec of N engines: through the service, and by a shell loop of numactl.

    PYTHONPATH=. python benchmarks/launch.py [--rounds N] [--instances N]

Both start the same engine in turns, in the same run: a shell that writes down when it began, and
becomes the fake engine only when all of them have; the last of them counts. The service plans,
writes the journal to disk before each start, checks the binding, and sees to a log, an exit code
and an adoption; the shell does none of that.
"""

import argparse
import asyncio
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from engine.client import ServiceClient
from engine.control import ApplyLayout, StopInstances
from engine.core.status import State
from tests.processes import FAKE_ENGINE, Home, a_home, eventually

WITHIN_S = 60.0
CROWDED = (
    "from engine.core.placing.table import Table; Table._refuse_taken = lambda *_: None; "
    "from engine.service.managed import Managed; Managed.occupies = lambda *_: False"
)
"""Any number of engines on this machine's few cores: a service that refuses no held core."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12, metavar="N", help="of each way (12)")
    parser.add_argument("--instances", type=int, default=8, metavar="N", help="per round (8)")
    asked = parser.parse_args()
    if shutil.which("numactl") is None:
        print("There is no numactl to compare with.", file=sys.stderr)
        return 1
    with a_home() as home:
        return asyncio.run(measure(home, asked.rounds, asked.instances))


async def measure(home: Home, rounds: int, count: int) -> int:
    client = await home.served(launcher=CROWDED)
    stamps = Path(tempfile.mkdtemp(prefix="stamps-", dir=home.folder))
    gate = home.folder / "gate"
    os.mkfifo(gate)
    opened = os.open(gate, os.O_RDWR)
    go = b"go\n" * count
    ways: dict[str, list[float]] = {"applied": [], "asked": [], "shell": [], "ready": []}
    for number in range(rounds + 1):  # the first is to warm up
        clear(stamps)
        began = now()
        offer = await client.offer(wishes(home, stamps, gate, count))
        offered = now()
        await client.apply(offer)
        last = await asyncio.to_thread(last_stamp, stamps, count)
        os.write(opened, go)
        await ready(home, client, count)
        became_ready = now()
        names = tuple(f"i{index}" for index in range(count))
        await home.apply(client, StopInstances(names, forget=True))
        await home.until(client, lambda now: not now)

        clear(stamps)
        looped = now()
        shell = subprocess.Popen(["bash", "-c", loop(home, stamps, gate, count)])  # noqa: ASYNC220
        by_shell = await asyncio.to_thread(last_stamp, stamps, count)
        os.write(opened, go)
        shell.terminate()
        await asyncio.to_thread(shell.wait)
        if number:
            ways["applied"].append((last - offered) * 1000)
            ways["asked"].append((last - began) * 1000)
            ways["shell"].append((by_shell - looped) * 1000)
            ways["ready"].append((became_ready - began) * 1000)
    print(f"{count} engines, {rounds} rounds in turns; ms until the last engine has begun")
    print(f"{'':34} {'median':>8} {'smallest':>9} {'largest':>8}")
    row("bash loop of numactl … &", ways["shell"])
    row("service, from `apply`", ways["applied"])
    row("service, with the plan before it", ways["asked"])
    row("service, until all are ready", ways["ready"])
    for name in ("applied", "asked"):
        pairs = zip(ways[name], ways["shell"], strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        print(f"service ({name}) / shell, median of the rounds' ratios: {ratio:.2f}")
    return 0


def now() -> float:
    """Of the clock that a shell has as EPOCHREALTIME."""
    return time.clock_gettime(time.CLOCK_REALTIME)


def row(name: str, spent: list[float]) -> None:
    print(f"{name:34} {statistics.median(spent):8.1f} {min(spent):9.1f} {max(spent):8.1f}")


def engine(stamp: str, gate: Path, port: str) -> str:
    """What both start, for a shell."""
    becomes = shlex.join([sys.executable, "-S", str(FAKE_ENGINE), "--port"])
    return f"echo $EPOCHREALTIME >{stamp}; read <{gate}; exec {becomes} {port}"


def wishes(home: Home, stamps: Path, gate: Path, count: int) -> ApplyLayout:
    return home.layout(
        *(
            {
                "name": f"i{index}",
                "slot": f"core:{index % 2}",
                "command": ["bash", "-c", engine(f"{stamps}/{index}", gate, "$0"), "{port}"],
            }
            for index in range(count)
        )
    )


def loop(home: Home, stamps: Path, gate: Path, count: int) -> str:
    """What a user writes without us; it waits, and ends its engines when it is ended."""
    script = engine(f"{stamps}/$0", gate, "$1")
    return (
        "trap 'kill $(jobs -p)' TERM\n"
        f"for i in $(seq 0 {count - 1}); do\n"
        "  numactl --physcpubind=$((i % 2)) --localalloc "
        f"bash -c {shlex.quote(script)} $i $(({home.ports[0]} + i)) >/dev/null 2>&1 &\n"
        "done\nwait\nwait\n"
    )


def clear(stamps: Path) -> None:
    for path in stamps.iterdir():
        path.unlink()


def last_stamp(stamps: Path, count: int) -> float:
    """When the last engine began."""

    def all_there() -> list[float]:
        found = [float(text) for path in stamps.iterdir() if (text := path.read_text().strip())]
        return found if len(found) == count else []

    return float(max(eventually(all_there, within_s=WITHIN_S)))


async def ready(home: Home, client: ServiceClient, count: int) -> None:
    await home.until(
        client,
        lambda now: len(now) == count and all(one.state is State.READY for one in now.values()),
        within_s=WITHIN_S,
    )


if __name__ == "__main__":
    sys.exit(main())
