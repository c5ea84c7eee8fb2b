"""Whether the terminal has gone away: Textual itself would spin on its dead input."""

import os
import select
import threading

LOOK_EVERY_S = 0.4
LOOKS_BEFORE_THE_END = 4
"""So long the event loop has for its own, cleaner end."""
HUNG_UP = 129
"""What a shell reports for a process that ended by SIGHUP."""


def hung_up(fd: int) -> bool:
    """True when the other side of this terminal is closed."""
    poller = select.poll()
    try:
        poller.register(fd, select.POLLHUP)
        events = poller.poll(0)
    except (OSError, ValueError):
        return True
    return any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in events)


class LastResort(threading.Thread):
    """Ends the process when its terminal is gone and the event loop cannot do so any more.

    A link that dies with frames still queued stops Textual's writer; its full queue then blocks
    the event loop for good, while its reader spins. Nothing is left to restore; engines run on.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(name="hangup", daemon=True)
        self._fd = fd
        self._over = threading.Event()

    def run(self) -> None:
        gone = 0
        while not self._over.wait(LOOK_EVERY_S):
            gone = gone + 1 if hung_up(self._fd) else 0
            if gone >= LOOKS_BEFORE_THE_END:
                os._exit(HUNG_UP)

    def call_off(self) -> None:
        """The panel has closed by itself."""
        self._over.set()
