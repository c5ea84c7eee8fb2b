"""The steady load of a demonstration: our own bench as a child process, one at a time."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.control import StartLoad
from engine.core.errors import ControlError
from engine.core.status import LoadStatus

BOUND = Path(__file__).with_name("bound.py")


@dataclass(frozen=True, slots=True)
class _Running:
    process: "subprocess.Popen[bytes]"
    asked: StartLoad
    ends_at: float


class Loads:
    """Starts and ends the load generator; it ends by itself when its time is over."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment = dict(environment)
        self._log = log
        self._running: _Running | None = None
        self._changing = asyncio.Lock()
        """Two that start a load at once must not leave one behind."""

    def status(self) -> LoadStatus | None:
        """The load that runs, if any."""
        running = self._running
        if running is None:
            return None
        if running.process.poll() is not None:
            self._running = None
            return None
        return LoadStatus(
            targets=running.asked.names,
            concurrency=running.asked.concurrency,
            pid=running.process.pid,
            ends_in_s=max(0.0, running.ends_at - time.monotonic()),
        )

    async def start(self, asked: StartLoad) -> None:
        """Replace any running load by this one."""
        argv = [sys.executable, "-P", "-m", "engine.cli.main", "bench", *asked.names]
        argv += ["--concurrency", str(asked.concurrency), "--input-len", str(asked.input_len)]
        argv += ["--output-len", str(asked.output_len), "--duration", f"{asked.duration_s:g}"]
        argv += ["--json"]
        async with self._changing:
            await self._end()
            try:
                # On this thread: the child ends with the thread that made it (see bound.py).
                process = self._spawn(argv)
            except OSError as error:
                raise ControlError(
                    what="The load was not started",
                    why=error.strerror or str(error),
                    do="Try again, or run `slotdeck bench` in another terminal",
                ) from None
            self._running = _Running(process, asked, time.monotonic() + asked.duration_s)

    async def stop(self) -> None:
        """End it and wait until it has ended; its requests are aborted."""
        async with self._changing:
            await self._end()

    async def _end(self) -> None:
        if self._running is None:
            return
        process, self._running = self._running.process, None
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, 3.0)
        if process.poll() is None:
            process.kill()
            await asyncio.to_thread(process.wait)

    def _spawn(self, argv: list[str]) -> "subprocess.Popen[bytes]":
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", str(BOUND), str(os.getpid()), *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
