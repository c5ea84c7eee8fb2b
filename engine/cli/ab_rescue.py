"""What ran before a comparison, on disk until it runs again: should nobody be left to start it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.core.errors import ControlError
from engine.host.paths import Paths

_NAME, _CUT_OFF = "before-ab.toml", "before-ab-cut-off.toml"


class Rescue:
    """A layout file with secrets and all, in the state folder, which is the user's alone."""

    def __init__(self, paths: Paths) -> None:
        self.path = paths.state / _NAME
        self.cut_off = paths.state / _CUT_OFF
        """What ran before an earlier comparison that never came to its end."""
        self.was_cut_off = False
        self.holds = False
        """Whether something is in it."""

    @contextmanager
    def held(self, text: str) -> Iterator[None]:
        """The file with this text, for as long as the comparison lasts; `done` empties it.

        Raises ControlError where another comparison of this user runs.
        """
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unwritten(self.path, error) from None
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ControlError(
                    what="Another comparison runs",
                    why=f"it holds {self.path}",
                    do="Wait until it has ended, or end it",
                ) from None
            try:
                self._write(file, text)
            except OSError as error:
                raise _unwritten(self.path, error) from None
            try:
                yield
            finally:
                if not self.holds:
                    self.path.unlink(missing_ok=True)
        finally:
            os.close(file)

    def _write(self, file: int, text: str) -> None:
        if old := os.pread(file, 1 << 24, 0):
            self.cut_off.write_bytes(old)
            self.cut_off.chmod(0o600)
            self.was_cut_off = True
        os.ftruncate(file, 0)
        os.pwrite(file, text.encode(), 0)
        os.fsync(file)
        self.holds = bool(text)

    def done(self) -> None:
        """What ran before runs again, or something else was chosen."""
        self.holds = False
        with suppress(OSError):
            os.truncate(self.path, 0)


def _unwritten(path: Path, error: OSError) -> ControlError:
    return ControlError(
        what="Nothing was compared",
        why=f"what runs now could not be written down first: {path}: {error.strerror or error}",
        do="Free some disk space, or set XDG_STATE_HOME to a folder that can be written",
    )
