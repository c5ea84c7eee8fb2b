"""Follows the service for as long as the panel is open, also through its restarts."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

from textual.message import Message

from engine.control import Control
from engine.core.errors import ControlError
from engine.unreachable import AnotherVersion
from tui.messages import ConnectionChanged, MachineRead, PastRead, SnapshotArrived
from tui.view import Connection

Reconnect = Callable[[], Awaitable[Control]]
LONGEST_WAIT_S = 15.0
"""Between two attempts to reach a service that is gone."""


@runtime_checkable
class Closing(Protocol):
    """A control that holds links."""

    async def aclose(self) -> None:
        """Let go of them."""


class Follower:
    """A lost service is a state, not an end: it is told, and tried again, later each time."""

    def __init__(
        self,
        control: Control,
        reconnect: Reconnect | None,
        post: Callable[[Message], object],
        clock: Callable[[], float],
        retry_s: float,
    ) -> None:
        self.control = control
        """The one that answers now."""
        self._reconnect = reconnect
        self._post = post
        self._clock = clock
        self._retry_s = retry_s
        self._wait_s = retry_s

    async def run(self) -> None:
        """Post each snapshot, the machine when it is another, and how the connection is."""
        while True:
            try:
                await self._follow_once()
                why = "the service ended"
            except (ControlError, OSError) as error:
                why = _in_words(error)
            await self._wait(why)
            while self._reconnect is not None:
                try:
                    fresh = await self._reconnect()
                except (ControlError, OSError) as error:
                    await self._wait(_in_words(error))
                    continue
                old, self.control = self.control, fresh
                if old is not fresh and isinstance(old, Closing):
                    await old.aclose()
                break

    async def _wait(self, why: str) -> None:
        """Say what is wrong and when it is tried again: later each time."""
        at = self._clock() + self._wait_s
        self._post(ConnectionChanged(Connection.GONE, why, at))
        await asyncio.sleep(self._wait_s)
        self._wait_s = min(self._wait_s * 2, LONGEST_WAIT_S)

    async def _follow_once(self) -> None:
        revision: str | None = None
        is_first = True
        async for snapshot in self.control.snapshots():
            if snapshot.revision != revision:
                self._post(MachineRead(await self.control.machine()))
                revision = snapshot.revision
                self._post(ConnectionChanged(Connection.LIVE))
                self._wait_s = self._retry_s
            self._post(SnapshotArrived(snapshot, self._clock()))
            if is_first:
                is_first = False
                # An older service has none; one that has gone is seen with the next snapshot.
                with contextlib.suppress(ControlError):
                    self._post(PastRead(await self.control.past(), self._clock()))


def _in_words(error: ControlError | OSError) -> str:
    match error:
        case AnotherVersion():
            return str(error)  # what to do is not to wait
        case ControlError():
            return f"{error.what}: {error.why}"
        case OSError():
            return str(error)
