"""The bounded log of one engine, and the record of who runs and how it ended."""

import os

RECORD_BYTES = 320
"""The exit record is written padded at the start, so a full disk cannot lose it at the end."""


class Log:
    """A log in pieces named by their first byte's offset; only the newest two are kept."""

    def __init__(self, folder: str, piece_bytes: int) -> None:
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            pass
        except FileNotFoundError:
            os.makedirs(folder, 0o700)
        self._folder = folder
        self._piece_bytes = piece_bytes
        self._offset = 0
        if pieces := self._pieces():
            last = os.path.join(folder, pieces[-1])
            self._offset = int(pieces[-1][4:]) + os.path.getsize(last)
        self.begin = self._offset
        self._lost = 0
        self._file = -1
        self._next_piece()

    def _pieces(self) -> list[str]:
        return sorted(name for name in os.listdir(self._folder) if name.startswith("log-"))

    def _next_piece(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        path = os.path.join(self._folder, f"log-{self._offset:016d}")
        # The old piece stays open until the new one is: a full disk may refuse it.
        file, old = os.open(path, flags, 0o600), self._file
        self._file, self._room = file, self._piece_bytes
        if old >= 0:
            os.close(old)
        for name in self._pieces()[:-2]:
            os.unlink(os.path.join(self._folder, name))

    def write(self, data: bytes) -> None:
        if self._lost:
            note = f"\n[slotdeck: {self._lost} bytes of this log were lost, the disk was full]\n"
            if self._append(note.encode()):
                self._lost += len(data)
                return
            self._lost = 0
        self._lost += self._append(data)

    def _append(self, data: bytes) -> int:
        """Write; returns how many bytes could not be. The engine must not notice."""
        try:
            if self._room <= 0:
                self._next_piece()
            while data:
                written = os.write(self._file, data)
                self._offset += written
                self._room -= written
                data = data[written:]
        except OSError:
            pass
        return len(data)


class Record:
    """Who runs and how it ended, for a service that was not there to see it."""

    def __init__(self, folder: str, mark: str, log: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(os.path.join(folder, "exit.json"), flags, 0o600)
        me = os.getpid()
        ticks = started_ticks(me)
        # With `log` the words of this start are told from those of earlier ones.
        self._head = f'"mark": "{mark}", "shim_pid": {me}, "shim_ticks": {ticks}, "log": {log}'

    def write(self, state: str, more: str = "") -> None:
        """Overwrite in place: needs no new disk block, and one sector is written at once."""
        text = f'{{{self._head}, "state": "{state}"{more}}}'.encode()
        os.pwrite(self._file, text.ljust(RECORD_BYTES - 1) + b"\n", 0)

    def settle(self) -> None:
        """Onto the disk while there is room. Whoever reads it before has not seen another boot,
        so no start waits for that."""
        try:
            os.fsync(self._file)
        except OSError:
            pass


def started_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b") ")[2].split()[19])
