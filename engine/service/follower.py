"""Tells when exactly this process ends: by pidfd, so its number cannot come to mean another."""

import asyncio
import os
from collections.abc import Callable

from engine.host.root import HostRoot
from engine.service.processes import open_verified


class Follower:
    """Follows any number of processes on one event loop."""

    def __init__(self, root: HostRoot) -> None:
        self._root = root
        self._watched: set[int] = set()

    def follow(self, pid: int, started_ticks: int, then: Callable[[], None]) -> None:
        """Call `then` when it ends, or at once when it has; OSError when it cannot be told."""
        loop = asyncio.get_running_loop()
        watched = open_verified(self._root, pid, started_ticks)
        if watched is None:
            then()
            return

        def ended() -> None:
            loop.remove_reader(watched)
            os.close(watched)
            self._watched.discard(watched)
            then()

        self._watched.add(watched)
        loop.add_reader(watched, ended)

    def close(self) -> None:
        """Follow nobody any more."""
        loop = asyncio.get_running_loop()
        for watched in self._watched:
            loop.remove_reader(watched)
            os.close(watched)
        self._watched.clear()
