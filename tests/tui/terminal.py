"""A real terminal for tests: a process on a pty, its screen kept by pyte."""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyte

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "TERM": "xterm-256color",
    "COLORTERM": "truecolor",
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    "HOME": "/nonexistent",
}
RESTORES = (b"\x1b[?1049l", b"\x1b[?1003l", b"\x1b[?25h")
"""Leaves the alternate screen, lets the mouse go, shows the cursor."""


class Terminal:
    """Starts `python ARGS` on its own pty; close it with `with`."""

    def __init__(self, *args: str, size: tuple[int, int] = (80, 24), **env: str) -> None:
        self._start([sys.executable, *args], size, {**ENVIRONMENT, **env})

    @classmethod
    def started(
        cls, argv: Sequence[str], *, size: tuple[int, int], env: Mapping[str, str]
    ) -> "Terminal":
        """Any program, in just that environment."""
        made = cls.__new__(cls)
        made._start(list(argv), size, dict(env))
        return made

    def _start(self, argv: list[str], size: tuple[int, int], env: dict[str, str]) -> None:
        self.screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.status: int | None = None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execve(argv[0], argv, env)
        self._set_size(*size)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.hang_up()

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        self._set_size(columns, lines)
        self.screen.resize(lines, columns)

    def write(self, data: bytes) -> None:
        os.write(self.fd, data)

    def read(self, seconds: float = 0.05) -> bool:
        """Take in what was written; False at the end."""
        if self.fd < 0:
            return False
        ready, _, _ = select.select([self.fd], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    @property
    def text(self) -> str:
        return "\n".join(self.screen.display)

    def until(self, condition: Callable[[], bool] | str, seconds: float = 60.0) -> None:
        """Wait for a fact, or for words on the screen."""
        deadline = time.monotonic() + seconds
        while not (condition in self.text if isinstance(condition, str) else condition()):
            assert time.monotonic() < deadline, f"never happened; the screen says:\n{self.text}"
            self.read()

    def ended(self) -> bool:
        """Whether the process is gone; its exit status is then in `status`."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                while self.read(0.0) and select.select([self.fd], [], [], 0)[0]:
                    pass
        return self.status is not None

    def hang_up(self) -> None:
        """The other side closes, as when a connection is lost."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def find(self, words: str) -> tuple[int, int]:
        """Column and row of the words, from 0."""
        for row, line in enumerate(self.screen.display):
            if words in line:
                return line.index(words), row
        raise AssertionError(f"{words!r} is not on the screen:\n{self.text}")


def mouse(button: int, x: int, y: int, *, up: bool = False) -> bytes:
    """One SGR mouse report; 0 is a press, 32 a move with the button held, 35 one without."""
    return f"\x1b[<{button};{x + 1};{y + 1}{'m' if up else 'M'}".encode()
