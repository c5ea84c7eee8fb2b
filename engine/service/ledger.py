"""Keeps the journal as new as the instances: written on a thread, so that a disk stops nobody."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from engine.host.whose import Here
from engine.service.journal import SCHEMA, JournalPage, JournalRow, write_journal

Tell = Callable[[str, str], None]
_BURST_S = 0.02


class Ledger:
    """The journal's one writer. Several changes in a burst become one write."""

    def __init__(
        self, path: Path, here: Here, rows: Callable[[], list[JournalRow]], tell: Tell
    ) -> None:
        self._path = path
        self._here = here
        self._rows = rows
        self._tell = tell
        self._wanted = 0
        self._tried = 0
        self._failing = False
        self._asked = asyncio.Event()
        self._hurried = asyncio.Event()
        self._turned = asyncio.Condition()
        self._writer: asyncio.Task[None] | None = None

    def save(self) -> None:
        """Something changed; it will be written soon."""
        self._wanted += 1
        self._wake()

    def retry(self) -> None:
        """Try again what the disk has refused."""
        if self._failing:
            self.save()

    async def saved(self) -> bool:
        """Wait until everything up to now has been written; False where the disk refuses it."""
        wanted = self._wanted
        self._hurried.set()
        self._wake()
        async with self._turned:
            await self._turned.wait_for(lambda: self._tried >= wanted)
        return not self._failing

    async def saved_within(self, seconds: float) -> None:
        """As `saved`, for what must go on also beside a disk that hangs."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.saved(), seconds)

    async def close(self) -> None:
        """Write the last changes, unless the disk hangs."""
        if self._wanted > self._tried:
            await self.saved_within(2.0)
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)

    def _wake(self) -> None:
        self._asked.set()
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write_on())

    async def _write_on(self) -> None:
        while True:
            await self._asked.wait()
            # Changes come in bursts: one write for all of one, unless somebody waits for it.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BURST_S):  # `wait_for` may swallow a cancellation
                    await self._hurried.wait()
            await asyncio.sleep(0)  # also for what is decided in the same breath
            self._asked.clear()
            self._hurried.clear()
            if self._tried == self._wanted:
                continue
            trying = self._wanted
            here = self._here
            page = JournalPage(SCHEMA, here.boot, self._rows(), here.pids, here.host)
            try:
                await asyncio.to_thread(write_journal, self._path, page)
            except Exception as error:  # noqa: BLE001 - whoever waits for it must be answered
                if not self._failing:
                    why = error.strerror if isinstance(error, OSError) else repr(error)
                    self._tell(f"the journal cannot be written: {why}", "error")
                self._failing = True
            else:
                if self._failing:
                    self._tell("the journal is written again", "information")
                self._failing = False
            async with self._turned:
                self._tried = trying
                self._turned.notify_all()
