"""The one injectable root under which /sys and /proc are read."""

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

    def text(self, name: str) -> str | None:
        """The file's text, or None where this kernel does not have it or does not let us read."""
        try:
            with (self.path / name).open("rb", buffering=0) as file:
                data = b""
                # By pieces: /proc/sys answers ENOMEM to a reader who asks for megabytes at once.
                while len(data) < LARGEST_FILE and (piece := file.read(_PIECE)):
                    data += piece
            return data.decode("utf-8", "replace").strip(_AROUND)
        except (OSError, ValueError):
            # Absent, a directory, EIO of an offline device, a name with a NUL: all "not told".
            return None

    def names(self, folder: str) -> tuple[str, ...]:
        """The names inside a folder, sorted; empty where there is none."""
        try:
            return tuple(sorted(entry.name for entry in (self.path / folder).iterdir()))
        except OSError:
            return ()
