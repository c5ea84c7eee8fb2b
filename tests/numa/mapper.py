"""Maps a file and reads it, then is the fake engine: `mapper.py FILE PROCESSES [ARGUMENT…]`."""

import mmap
import os
import runpy
import signal
import sys
from pathlib import Path

PAGE_BYTES = 4096
FAKE_ENGINE = Path(__file__).parents[1] / "fake_engine.py"


def read_mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    for offset in range(0, len(mapped), PAGE_BYTES):
        mapped[offset]
    return mapped


if __name__ == "__main__":
    path, processes, *rest = sys.argv[1:]
    weights = read_mapped(Path(path))
    for _ in range(int(processes) - 1):
        if os.fork() == 0:
            weights = read_mapped(Path(path))
            signal.pause()
    print("mapped", flush=True)  # noqa: T201 - somebody may wait for it
    if not rest:
        signal.pause()
    sys.argv[1:] = rest
    runpy.run_path(str(FAKE_ENGINE), run_name="__main__")
