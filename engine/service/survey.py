"""A look at the machine before a start; starts at the same time share one look."""

import asyncio

from engine.core.topology import Machine
from engine.host.machine import read_machine
from engine.host.ports import listening_ports
from engine.host.root import HostRoot

Seen = tuple[Machine, frozenset[int]]
"""The machine, and the ports that somebody listens on."""


class Survey:
    """Whoever asks gets what was read after that."""

    def __init__(self, root: HostRoot) -> None:
        self._root = root
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[Seen] | None = None

    async def now(self) -> Seen:
        """The machine and its taken ports."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._look())
        return await asyncio.shield(self._next)

    async def _look(self) -> Seen:
        async with self._turn:
            self._next = None  # whoever asks from now on wants what comes after
            return await asyncio.to_thread(self._read)

    def _read(self) -> Seen:
        return read_machine(self._root), listening_ports(self._root)
