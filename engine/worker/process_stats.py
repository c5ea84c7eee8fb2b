"""The process_* metrics of Prometheus, read from /proc/self."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from engine.worker.metrics import counter, gauge


def lines() -> Iterator[str]:
    stat = _after_name(Path("/proc/self/stat").read_text(encoding="utf-8"))
    ticks = os.sysconf("SC_CLK_TCK")
    page = os.sysconf("SC_PAGE_SIZE")
    yield from gauge(
        "process_virtual_memory_bytes", "Virtual memory size in bytes.", {}, float(stat[20])
    )
    yield from gauge(
        "process_resident_memory_bytes", "Resident memory size in bytes.", {}, int(stat[21]) * page
    )
    yield from gauge(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        {},
        _boot_time() + int(stat[19]) / ticks,
    )
    yield from counter(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        {},
        (int(stat[11]) + int(stat[12])) / ticks,
    )
    yield from gauge(
        "process_open_fds",
        "Number of open file descriptors.",
        {},
        len(os.listdir("/proc/self/fd")) - 1,  # noqa: PTH208 -- one of them is the listing itself
    )
    yield from gauge(
        "process_max_fds",
        "Maximum number of open file descriptors.",
        {},
        resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def _after_name(stat: str) -> list[str]:
    """The fields from the third on; the second, a name in brackets, may hold spaces."""
    return stat[stat.rindex(")") + 2 :].split()


def _boot_time() -> float:
    for line in Path("/proc/stat").read_text(encoding="utf-8").splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0
