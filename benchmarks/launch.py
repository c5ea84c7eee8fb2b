"""From the request to the start of N engines: through the service, and by a shell loop of numactl.

    PYTHONPATH=. python benchmarks/launch.py [--rounds N] [--instances N]

Both start the same fake engine in turns, in the same run. Each engine writes down when its own
`main` began, so an interpreter's start is in both; the last of them counts. The service verifies
the binding, writes the journal to disk before each start, and sees to a log, an exit code and an
adoption; the shell does none of that.
"""

import argparse
import asyncio
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
    first = home.ports[0]
    ways: dict[str, list[float]] = {"service": [], "shell": []}
    last_ready: list[float] = []
    for number in range(rounds + 1):  # the first is to warm up
        clear(stamps)
        begun = time.monotonic()
        await home.apply(client, wishes(home, stamps, count))
        service = await asyncio.to_thread(last_stamp, stamps, count, begun)
        await ready(home, client, count)
        became_ready = time.monotonic() - begun
        names = tuple(f"i{index}" for index in range(count))
        await home.apply(client, StopInstances(names, forget=True))
        await home.until(client, lambda now: not now)

        clear(stamps)
        begun = time.monotonic()
        shell = subprocess.Popen(["bash", "-c", loop(stamps, first, count)])  # noqa: ASYNC220
        spent = await asyncio.to_thread(last_stamp, stamps, count, begun)
        shell.terminate()
        await asyncio.to_thread(shell.wait)
        if number:
            ways["service"].append(service * 1000)
            ways["shell"].append(spent * 1000)
            last_ready.append(became_ready * 1000)
    print(f"{count} engines, {rounds} rounds in turns; ms until the last engine's main has begun")
    print(f"{'':28} {'median':>8} {'smallest':>9} {'largest':>8}")
    for name, told in (("service", "service"), ("shell", "bash loop of numactl … &")):
        row(told, ways[name])
    row("service, all are ready", last_ready)
    median = statistics.median
    ratio = median(a / b for a, b in zip(ways["service"], ways["shell"], strict=True))
    print(f"service / shell, median of the rounds' ratios: {ratio:.2f}")
    return 0


def row(name: str, spent: list[float]) -> None:
    print(f"{name:28} {statistics.median(spent):8.1f} {min(spent):9.1f} {max(spent):8.1f}")


def wishes(home: Home, stamps: Path, count: int) -> ApplyLayout:
    return home.layout(
        *(
            {
                "name": f"i{index}",
                "slot": f"core:{index % 2}",
                "flags": ["--write-stamp", str(stamps / str(index))],
            }
            for index in range(count)
        )
    )


def loop(stamps: Path, first: int, count: int) -> str:
    """What a user writes without us; it waits, and ends its engines when it is ended."""
    return (
        "trap 'kill $(jobs -p)' TERM\n"
        f"for i in $(seq 0 {count - 1}); do\n"
        f"  numactl --physcpubind=$((i % 2)) --localalloc {sys.executable} -S {FAKE_ENGINE} "
        f"--port $(({first} + i)) --write-stamp {stamps}/$i >/dev/null 2>&1 &\n"
        "done\nwait\nwait\n"
    )


def clear(stamps: Path) -> None:
    for path in stamps.iterdir():
        path.unlink()


def last_stamp(stamps: Path, count: int, begun: float) -> float:
    """Seconds until the last engine's main began."""

    def all_there() -> list[float]:
        found = [float(path.read_text()) for path in stamps.iterdir() if not path.suffix]
        return found if len(found) == count else []

    return float(max(eventually(all_there, within_s=WITHIN_S))) - begun


async def ready(home: Home, client: ServiceClient, count: int) -> None:
    await home.until(
        client,
        lambda now: len(now) == count and all(one.state is State.READY for one in now.values()),
        within_s=WITHIN_S,
    )


if __name__ == "__main__":
    sys.exit(main())
