"""The one small process that stays beside an engine: pumps its log, records its exit code.

Runs by path in an isolated interpreter (`python -I -S shim.py`) with the standard library only.
It reads one JSON order on stdin, starts the engine in a session of its own, answers one JSON
line on stdout, and then outlives the service: the engine's output goes through it into a bounded
log, so a full disk or a dead service never reaches the engine. Affinity and memory policy are
inherited from the thread that started this process.
"""

import contextlib
import json
import os
import select
import signal
import sys
from typing import Any

CHUNK = 1 << 16
PIPE_CHUNKS = 32
RECORD_BYTES = 256
"""The exit record is written padded at the start, so a full disk cannot lose it at the end."""


class Log:
    """A log in pieces named by their first byte's offset; only the newest two are kept."""

    def __init__(self, folder: str, piece_bytes: int) -> None:
        self._folder = folder
        self._piece_bytes = piece_bytes
        pieces = sorted(name for name in os.listdir(folder) if name.startswith("log-"))
        self._offset = 0
        if pieces:
            last = os.path.join(folder, pieces[-1])
            self._offset = int(pieces[-1][4:]) + os.path.getsize(last)
        self._lost = 0
        self._file = -1
        self._open()

    def _open(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        path = os.path.join(self._folder, f"log-{self._offset:016d}")
        self._file = os.open(path, flags, 0o600)
        self._room = self._piece_bytes
        for name in sorted(n for n in os.listdir(self._folder) if n.startswith("log-"))[:-2]:
            os.unlink(os.path.join(self._folder, name))

    def write(self, data: bytes) -> None:
        if self._lost:
            note = f"\n[slotdeck: {self._lost} bytes of this log were lost, the disk was full]\n"
            if not self._append(note.encode()):
                self._lost += len(data)
                return
            self._lost = 0
        if not self._append(data):
            self._lost += len(data)

    def _append(self, data: bytes) -> bool:
        try:
            if self._room <= 0:
                self._open()
            while data:
                written = os.write(self._file, data)
                self._offset += written
                self._room -= written
                data = data[written:]
        except OSError:  # full disk or quota: the engine must not notice
            return False
        return True


def write_record(path: str, record: dict[str, object], *, create: bool = False) -> None:
    """Overwrite in place: needs no new disk block, and one sector is written at once."""
    text = json.dumps(record).encode().ljust(RECORD_BYTES - 1) + b"\n"
    flags = os.O_WRONLY | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    file = os.open(path, flags, 0o600)
    try:
        os.pwrite(file, text, 0)
        os.fsync(file)
    finally:
        os.close(file)


def started_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b") ")[2].split()[19])


def start(order: dict[str, Any], output: int) -> int:
    """Fork and exec; returns the pid, or raises OSError with what exec said."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            nothing = os.open("/dev/null", os.O_RDONLY)
            os.dup2(nothing, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(order["folder"])
            # An engine that runs out of memory should go before anything that watches it.
            with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
                file.write("300")
            os.execve(order["argv"][0], order["argv"], order["env"])
        except BaseException as error:
            code = getattr(error, "errno", None) or 0
            os.write(tell, f"{code} {error}".encode())
        os._exit(127)
    os.close(tell)
    said = os.read(told, 4096)
    os.close(told)
    if said:
        os.waitpid(pid, 0)
        code, _, text = said.decode("utf-8", "replace").partition(" ")
        raise OSError(int(code), text)
    return pid


def answer(value: dict[str, object]) -> None:
    os.write(1, json.dumps(value).encode() + b"\n")
    nothing = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)


def main() -> int:
    order = json.loads(sys.stdin.buffer.read())
    # A shim ends only with its engine; it never holds a terminal.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    record = os.path.join(order["folder"], "exit.json")
    try:
        log = Log(order["folder"], order["piece_bytes"])
        write_record(record, {"mark": order["mark"], "state": "starting"}, create=True)
        output, inlet = os.pipe2(os.O_CLOEXEC)
        pid = start(order, inlet)
        os.close(inlet)
        os.set_blocking(output, False)
        ticks = started_ticks(pid)
        running = {"mark": order["mark"], "state": "running", "pid": pid, "started_ticks": ticks}
        write_record(record, running)
    except OSError as error:
        answer({"error": error.errno or 0, "text": str(error)})
        return 1
    answer({"pid": pid, "started_ticks": ticks})

    poll = select.poll()
    poll.register(output, select.POLLIN)
    poll.register(woken, select.POLLIN)
    open_output, status = True, None
    while status is None:
        for file, _ in poll.poll():
            if file == woken:
                with contextlib.suppress(BlockingIOError):
                    os.read(woken, 512)
                done, code = os.waitpid(pid, os.WNOHANG)
                if done:
                    status = os.waitstatus_to_exitcode(code)
            elif open_output:
                try:
                    data = os.read(output, CHUNK)
                except BlockingIOError:
                    continue
                if data:
                    log.write(data)
                else:  # the engine closed its output and lives on
                    open_output = False
                    poll.unregister(output)
    with contextlib.suppress(BlockingIOError):
        for _ in range(PIPE_CHUNKS):  # a child that got away may hold the pipe and write on
            if not (data := os.read(output, CHUNK)):
                break
            log.write(data)
    with contextlib.suppress(OSError):
        write_record(record, {**running, "state": "ended", "code": status})
    return 0


if __name__ == "__main__":
    sys.exit(main())
