"""The nursery: one small process, made once, that forks a shim for each engine."""

import socket
import subprocess
import sys
from pathlib import Path

from engine.service.processes import SHIM_MARK
from engine.service.shim.execution import MARK_BYTES

_PROGRAM = Path(__file__).parent / "shim" / "__main__.py"
_ENDS_WITHIN_S = 2.0


class Nursery:
    """From here; the methods raise OSError once it has ended."""

    def __init__(self, umask: int) -> None:
        self._door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._waiting = 0
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_PROGRAM), str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={SHIM_MARK: "0" * MARK_BYTES},
                cwd="/",
                pass_fds=[theirs.fileno()],
                bufsize=0,
                umask=umask,
            )

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def connect(self) -> socket.socket:
        """A connection to a new shim, which waits for its order."""
        ours, theirs = socket.socketpair()
        with theirs:
            if not self._waiting:
                self._fork(1)
            self._waiting -= 1
            socket.send_fds(self._door, [b"."], [theirs.fileno()])
        return ours

    def expect(self, shims: int) -> None:
        """Have so many ready: to fork them takes the longest part of a start."""
        self._fork(max(0, shims - self._waiting))

    def dismiss(self) -> None:
        """Those that were expected and did not come."""
        for _ in range(self._waiting):
            self._door.send(b"-")
        self._waiting = 0

    def close(self) -> None:
        """Let it end; shims stay with their engines."""
        self._door.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _fork(self, shims: int) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(b"." * shims)
        self._waiting += shims
