"""The socket that clients come by: opened, kept open where its file is deleted, and closed."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from engine.core.errors import ControlError
from engine.host.paths import Paths
from engine.wire import LIMIT_BYTES

_File = tuple[int, int, int]
"""Device, inode and time of making: an inode's number alone is soon used again."""
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Door:
    """One listening Unix socket, 0600.

    After a user's last logout systemd removes XDG_RUNTIME_DIR with everything in it, while engines
    and their service go on (pam_systemd(8)). At the next login the folder is there again, and then
    the socket is too.
    """

    def __init__(self, paths: Paths, serve: Serve) -> None:
        self._paths = paths
        self._serve = serve
        self._server: asyncio.Server | None = None
        self._file: _File | None = None

    async def open(self) -> None:
        """Listen, in the place of whatever stale file is there. Raises OSError."""
        path = self._paths.socket
        path.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            opened = await asyncio.start_unix_server(self._serve, path, limit=LIMIT_BYTES)
        finally:
            os.umask(mask)
        if self._server is not None:
            self._server.close()
        self._server, self._file = opened, _file_at(path)

    async def keep(self) -> bool:
        """Open it again where its file is gone; False when another service has taken its place."""
        found = _file_at(self._paths.socket)
        if found == self._file:
            return True
        if found is not None:
            return False
        # A login makes the folder that ours belongs into; we would only be in its way.
        if self._paths.runtime.parent.is_dir():
            with contextlib.suppress(OSError, ControlError):  # e.g. a full disk: next time
                self._paths.prepare()
                await self.open()
        return True

    def close(self) -> None:
        """Listen no more, and leave no file behind."""
        if self._server is not None:
            self._server.close()
        if self._file is not None and _file_at(self._paths.socket) == self._file:
            self._paths.socket.unlink(missing_ok=True)


def _file_at(path: Path) -> _File | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns
