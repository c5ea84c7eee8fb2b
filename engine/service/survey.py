"""A look at something of the machine; who asks at the same time shares one look."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

Seen = TypeVar("Seen")


class Survey(Generic[Seen]):
    """Whoever asks gets what was read after that."""

    def __init__(self, read: Callable[[], Seen]) -> None:
        self._read = read
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[Seen] | None = None

    async def now(self) -> Seen:
        """What `read` returns."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._look())
        return await asyncio.shield(self._next)

    async def _look(self) -> Seen:
        async with self._turn:
            self._next = None  # whoever asks from now on wants what comes after
            return await asyncio.to_thread(self._read)
