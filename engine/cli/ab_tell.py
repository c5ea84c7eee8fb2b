"""Who watches a comparison: a person at a terminal, or a program that reads lines and answers."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from engine.core.comparing import telling
from engine.core.comparing.telling import Deciding, Measuring, Planned, Told, line_of

DECIDE_WITHIN_S = 600.0
"""What ran before is down until it is decided, so that this cannot take for ever."""


class Watcher(Protocol):
    """Is told what happens, and asked what to do."""

    def said(self, line: str) -> None:
        """A step in words."""
        ...

    def told(self, what: Told) -> None:
        """The same as a value, and all else."""
        ...

    async def begins(self, planned: Planned) -> bool:
        """Whether to go on."""
        ...

    def stoppable(self, stop: Callable[[], object] | None) -> None:
        """How to end the measuring; None: it is over."""
        ...

    async def keeps(self, deciding: Deciding) -> str | None:
        """The arm to keep; None puts back what ran before."""
        ...


class Person:
    """Reads words on the error output, and ends it by Ctrl-C."""

    def said(self, line: str) -> None:
        say(line)

    def told(self, what: Told) -> None:
        """One line that is written over, where somebody watches."""
        if isinstance(what, Measuring) and sys.stderr.isatty():
            told = f"\r\x1b[K{what.label}: {what.phase} {what.elapsed_s:.0f} s"
            with suppress(OSError):
                print(told, end="", file=sys.stderr, flush=True)

    async def begins(self, planned: Planned) -> bool:
        return True

    def stoppable(self, stop: Callable[[], object] | None) -> None:
        pass

    async def keeps(self, deciding: Deciding) -> str | None:
        return None


class Program:
    """Reads JSON lines on the output, writes words on the input; gone, it wants all put back."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._orders: asyncio.Queue[str] = asyncio.Queue()
        self._stop: Callable[[], object] | None = None
        # Standard input may be anything, of which event loops watch only some.
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        rest = b""
        # Not sys.stdin: a thread that waits in its lock would keep Python from ending.
        while data := _read():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._hand_over(line.decode(errors="replace").strip())
        self._hand_over(telling.STOP)

    def _hand_over(self, order: str) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._heard, order)

    def _heard(self, order: str) -> None:
        stop, self._stop = self._stop, None
        if order == telling.STOP and stop is not None:
            stop()  # once: a second time would leave all as it is
            return
        self._stop = stop
        self._orders.put_nowait(order)

    def said(self, line: str) -> None:
        self.told(telling.Said(line))

    def told(self, what: Told) -> None:
        line = line_of(what) + b"\n"
        with suppress(OSError):  # nobody reads any more; what ran is put back all the same
            while line:
                line = line[os.write(1, line) :]

    async def begins(self, planned: Planned) -> bool:
        self.told(planned)
        return await self._orders.get() == telling.START

    def stoppable(self, stop: Callable[[], object] | None) -> None:
        self._stop = stop
        if stop is not None and not self._orders.empty():
            self._heard(self._orders.get_nowait())

    async def keeps(self, deciding: Deciding) -> str | None:
        self.told(deciding)
        with suppress(TimeoutError):
            async with asyncio.timeout(deciding.within_s):
                verb, _, arm = (await self._orders.get()).partition(" ")
                return arm if verb == telling.KEEP else None
        return None


def _read() -> bytes:
    try:
        return os.read(0, 4096)
    except OSError:
        return b""


def say(line: str) -> None:
    """To a person; whose terminal may have gone, while engines are still to be put back."""
    with suppress(OSError):
        clear = "\r\x1b[K" if sys.stderr.isatty() else ""
        print(f"{clear}{line}", file=sys.stderr, flush=True)
