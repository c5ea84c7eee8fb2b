"""The one injectable root under which /sys and /proc are read."""

import os
from dataclasses import dataclass
from pathlib import Path

LARGEST_FILE = 4 << 20
"""No kernel file that we read is larger; a longer one is cut, not swallowed."""

_PIECE = 64 << 10
_AROUND = " \t\r\n\0"
"""Some kernels end a list with a NUL after the new line."""


@dataclass(frozen=True, slots=True)
class HostRoot:
    """The running machine's files, or a recorded copy of another machine's."""

    path: Path = Path("/")

    @property
    def live(self) -> bool:
        """True for the running machine."""
        return self.path == Path("/")

    def content(self, name: str) -> str | None:
        """All of a file as it stands, or None where it is absent or not for us to read."""
        data = self.raw(name)
        return None if data is None else data.decode("utf-8", "replace")

    def raw(self, name: str) -> bytes | None:
        """The same of a file that is no text; the kernel gives those a page at a time."""
        try:
            # Without blocking: in a recorded tree a pipe may stand where the kernel has a file.
            file = os.open(f"{self.path}/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError):  # absent, or a name with a NUL
            return None
        try:
            data = b""
            # By pieces: /proc/sys answers ENOMEM to a reader who asks for megabytes at once.
            while len(data) < LARGEST_FILE and (piece := os.read(file, _PIECE)):
                data += piece
        except OSError:  # a directory, or EIO of an offline device
            return None
        finally:
            os.close(file)
        return data

    def text(self, name: str) -> str | None:
        """The file's text, or None where this kernel does not have it or does not let us read."""
        content = self.content(name)
        return None if content is None else content.strip(_AROUND)

    def line(self, name: str) -> str | None:
        """The text of a file of one value; None also where its end is missing.

        The kernel ends each with a new line: without it "1" may have been "16".
        """
        content = self.content(name)
        if content is None or not content.rstrip("\0").endswith("\n"):
            return None
        return content.strip(_AROUND)

    def names(self, folder: str) -> tuple[str, ...]:
        """The names inside a folder, sorted; empty where there is none."""
        try:
            return tuple(sorted(os.listdir(f"{self.path}/{folder}")))  # noqa: PTH208 - 5x faster
        except (OSError, ValueError):
            return ()
