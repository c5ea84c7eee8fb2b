"""Time to read a machine, beside hwloc's `lstopo-no-graphics --of xml` on the same tree.

    python benchmarks/topology.py [--runs 20] [TREE…]

A TREE is a folder or an archive with a machine's sys and proc; without one, the recorded machine
with the most PUs is taken where there are any, and made-up ones of 256 to 4096 PUs are written.
lstopo (Debian: hwloc-nox) is a C program whose whole run counts; of ours the reading alone, since
the service reads within a running process, and then `slotdeck topo --json` with Python's start.
All figures are medians in ms of one run on one machine, alternating.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from engine.core.synthetic import parse_synthetic
from engine.host.archive import open_root
from engine.host.machine import read_machine
from engine.host.root import HostRoot
from tests.shared import shared
from tests.sysfs_tree import write_machine

LSTOPO = shutil.which("lstopo-no-graphics")
MADE_UP = {
    "made up, 256 PUs": "pack:2 numa:2 core:32 pu:2 mem:64GiB",
    "made up, 1024 PUs": "pack:4 numa:4 core:32 pu:2 mem:64GiB",
    "made up, 4096 PUs": "pack:8 numa:4 core:64 pu:2 mem:64GiB",
}


@contextmanager
def trees(named: list[Path]) -> Iterator[dict[str, HostRoot]]:
    """What to read, by the name to print."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        if named:
            yield {path.name: stack.enter_context(open_root(path)) for path in named}
            return
        found: dict[str, HostRoot] = {}
        recorded = sorted(shared("machines/trees").glob("*.tar.bz2"))
        if recorded:
            # Their names start with the number of PUs.
            largest = max(recorded, key=lambda path: int(digits(path.name) or 0))
            found[largest.name.removesuffix(".tar.bz2")] = stack.enter_context(open_root(largest))
        for name, spec in MADE_UP.items():
            found[name] = write_machine(parse_synthetic(spec), folder / name)
        yield found


def digits(text: str) -> str:
    return text[: len(text) - len(text.lstrip("0123456789"))]


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1000


def lstopo(root: HostRoot) -> None:
    # Its x86 part would ask this machine's processor about another machine's caches.
    settings = {
        "HWLOC_FSROOT": str(root.path),
        "HWLOC_THISSYSTEM": "0",
        "HWLOC_COMPONENTS": "-x86",
    }
    subprocess.run(
        [LSTOPO or "lstopo-no-graphics", "--of", "xml"],
        env={**os.environ, **settings},  # noqa: TID251 - the program's own
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def whole_command(root: HostRoot) -> None:
    command = [sys.executable, "-m", "engine.cli.main", "topo", "--json", "--root", str(root.path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("trees", metavar="TREE", type=Path, nargs="*")
    asked = parser.parse_args()
    print(f"{'machine':<32}{'PUs':>6}{'read':>9}{'lstopo':>9}{'ratio':>7}{'command':>9}")
    with trees(asked.trees) as found:
        for name, root in found.items():
            machine = read_machine(root)  # the files are in the page cache from here on
            ours: list[float] = []
            theirs: list[float] = []
            whole: list[float] = []
            for _ in range(asked.runs):
                ours.append(timed(partial(read_machine, root)))
                if LSTOPO:
                    theirs.append(timed(partial(lstopo, root)))
                whole.append(timed(partial(whole_command, root)))
            read = statistics.median(ours)
            other = statistics.median(theirs) if theirs else None
            print(
                f"{name:<32}{len(machine.pus.online):>6}{read:>9.1f}"
                f"{'–' if other is None else format(other, '.1f'):>9}"
                f"{'–' if other is None else format(read / other, '.2f'):>7}"
                f"{statistics.median(whole):>9.1f}"
            )
    bare = statistics.median(
        timed(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))
        for _ in range(asked.runs)
    )
    print(f"Python's bare start: {bare:.1f} ms, which is within `command`")
    if not LSTOPO:
        print("lstopo-no-graphics is not installed (Debian: apt-get install hwloc-nox)")


if __name__ == "__main__":
    main()
