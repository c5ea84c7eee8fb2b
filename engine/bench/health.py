"""Whether the load generator itself got enough CPU for its figures to be believed."""

import asyncio
import os
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from engine.bench.values import ClientHealth
from engine.core.quantiles import percentile

CPU_LIMIT = 0.70
RUNQUEUE_LIMIT = 0.02
LATE_LIMIT = 0.01
"""Share of an open loop's sends."""
LAG_PERIOD_S = 0.05
LAGS_KEPT = 20_000
"""About a quarter of an hour; endless loads judge by the newest."""

SCHEDSTAT = Path("/proc/thread-self/schedstat")


class HealthWatch:
    """Of the thread that runs the event loop, from `start` to `finish`."""

    def __init__(self) -> None:
        self._lags: deque[float] = deque(maxlen=LAGS_KEPT)
        self._task: asyncio.Task[None] | None = None
        self._began_at = self._began_cpu = 0.0
        self._began_wait: float | None = None

    def start(self) -> None:
        self._began_at, self._began_cpu = time.perf_counter(), time.process_time()
        self._began_wait = runqueue_wait_s()
        self._task = asyncio.get_running_loop().create_task(self._watch_lag())

    def finish(self) -> ClientHealth:
        self.stop()
        wall_s = max(time.perf_counter() - self._began_at, 1e-9)
        cpu_share = (time.process_time() - self._began_cpu) / wall_s
        waited = runqueue_wait_s()
        wait_share = None
        if waited is not None and self._began_wait is not None:
            wait_share = (waited - self._began_wait) / wall_s
        lags = sorted(self._lags)
        return ClientHealth(
            cpu_share=cpu_share,
            runqueue_wait_share=wait_share,
            loop_lag_p50_s=percentile(lags, 0.5),
            loop_lag_p99_s=percentile(lags, 0.99),
            loop_lag_max_s=lags[-1] if lags else None,
            limits=why_limited(cpu_share, wait_share),
        )

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _watch_lag(self) -> None:
        while True:
            due = time.perf_counter() + LAG_PERIOD_S
            await asyncio.sleep(LAG_PERIOD_S)
            self._lags.append(max(0.0, time.perf_counter() - due))


def why_limited(cpu_share: float, runqueue_wait_share: float | None) -> tuple[str, ...]:
    """Mean figures still look right on a starved client; these two shares are what tells."""
    limits = []
    if cpu_share > CPU_LIMIT:
        limits.append(f"it used {cpu_share:.0%} of a core, more than {CPU_LIMIT:.0%}")
    if runqueue_wait_share is not None and runqueue_wait_share > RUNQUEUE_LIMIT:
        limits.append(
            f"it waited for a core {runqueue_wait_share:.1%} of the time, "
            f"more than {RUNQUEUE_LIMIT:.0%}"
        )
    return tuple(limits)


def why_late(late_shares: Iterable[float | None], late_s: float) -> tuple[str, ...]:
    """Of open loops: a schedule that is not kept is another load than the one that was asked."""
    worst = max((share for share in late_shares if share is not None), default=0.0)
    if worst <= LATE_LIMIT:
        return ()
    return (
        f"it began {worst:.1%} of its sends more than {late_s * 1e3:g} ms late, "
        f"more than {LATE_LIMIT:.0%}",
    )


def runqueue_wait_s() -> float | None:
    """Second field of /proc/thread-self/schedstat; None where this kernel does not keep it."""
    try:
        return int(SCHEDSTAT.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


class Pinned:
    """Keeps the calling thread on these PUs while it is entered, and says what came of it."""

    def __init__(self, pus: frozenset[int] | None) -> None:
        self._asked = pus
        self._before: set[int] | None = None
        self.refused: str | None = None

    def __enter__(self) -> "Pinned":
        if self._asked is None:
            return self
        before = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, self._asked)
        except OSError as error:
            self.refused = error.strerror or str(error)
        else:
            self._before = before
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            os.sched_setaffinity(0, self._before)

    def got(self) -> frozenset[int]:
        """Read back: a cpuset narrows what was asked, and says nothing."""
        return frozenset(os.sched_getaffinity(0))
