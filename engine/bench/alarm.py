"""Wakes a coroutine at an instant, to some tens of microseconds where event loops know only ms."""

import asyncio
import contextlib
import ctypes
import os
import time

_CLOCK_MONOTONIC = 1
"""The clock of `time.perf_counter` on Linux."""
_ABSOLUTE = 1


class _When(ctypes.Structure):
    """`struct itimerspec`: every so often, and first then."""

    _fields_ = (
        ("every_s", ctypes.c_long),
        ("every_ns", ctypes.c_long),
        ("at_s", ctypes.c_long),
        ("at_ns", ctypes.c_long),
    )


class Alarm:
    """For one waiter at a time. Where the kernel has no timerfd, the event loop's own timer."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._ring)

    async def until(self, at: float) -> None:
        """`at` is of `time.perf_counter`; one that is past returns at once."""
        left_s = at - time.perf_counter()
        if left_s <= 0:
            # Whoever is late many times over must still let the others run.
            await asyncio.sleep(0)
            return
        if self._fd < 0:
            await asyncio.sleep(left_s)
            return
        seconds, part = divmod(at, 1.0)
        when = _When(0, 0, int(seconds), max(1, int(part * 1e9)))
        self._waiting = self._loop.create_future()
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(when), None)
        await self._waiting

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _ring(self) -> None:
        # One that was set anew meanwhile has nothing to be read.
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_result(None)
