"""The one small process that stays beside an engine: pumps its log, records its exit code.

Runs by path in an isolated interpreter (`python -I -S shim.py`) with as few modules as can be:
its memory is paid once per engine. It reads one order on stdin (`pack_order` in the launcher),
starts the engine in a session of its own, answers one line on stdout, and then outlives the
service: the engine's output goes through it into a bounded log, so a full disk or a dead service
never reaches the engine. Affinity and memory policy are inherited from the thread that started
this process.
"""

import os
import select
import sys
import time

# `signal` would import enum, and a third of our own memory with it.
from _signal import (  # type: ignore[import-not-found]
    SIG_DFL,
    SIG_IGN,
    SIGCHLD,
    SIGHUP,
    SIGINT,
    SIGKILL,
    SIGPIPE,
    SIGTERM,
    SIGXFSZ,
    set_wakeup_fd,
    signal,
)

CHUNK = 1 << 16
PIPE_CHUNKS = 32
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
RECORD_BYTES = 320
"""The exit record is written padded at the start, so a full disk cannot lose it at the end."""


class Log:
    """A log in pieces named by their first byte's offset; only the newest two are kept."""

    def __init__(self, folder: str, piece_bytes: int) -> None:
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
        os.fsync(self._file)


def started_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b") ")[2].split()[19])


def read_order() -> tuple[str, str, int, list[bytes], dict[bytes, bytes]]:
    """folder, mark, bytes of a log piece, argv, environment; ValueError for a cut order."""
    text = b""
    while data := os.read(0, CHUNK):
        text += data
    folder, mark, piece_bytes, words, *rest = text.split(b"\0")
    if rest.pop() != b"end":
        raise ValueError("the order is cut")
    argv, settings = rest[: int(words)], rest[int(words) :]
    env = {name: value for name, _, value in (one.partition(b"=") for one in settings)}
    return os.fsdecode(folder), mark.decode(), int(piece_bytes), argv, env


def start(folder: str, argv: list[bytes], env: dict[bytes, bytes], output: int) -> int:
    """Fork and exec; returns the pid, or raises OSError with what exec said."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for number in (SIGHUP, SIGINT, SIGTERM, SIGPIPE, SIGXFSZ):
                signal(number, SIG_DFL)
            nothing = os.open("/dev/null", os.O_RDONLY)
            os.dup2(nothing, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(folder)
            try:
                # An engine that runs out of memory should go before anything that watches it.
                with open("/proc/self/oom_score_adj", "w") as file:
                    file.write("300")
            except OSError:
                pass
            no_core_file()
            os.execve(argv[0], argv, env)
        except BaseException as error:
            code = getattr(error, "errno", None) or 0
            os.write(tell, f"{code} {getattr(error, 'strerror', None) or error}".encode())
        os._exit(127)
    os.close(tell)
    said = os.read(told, 4096)
    os.close(told)
    if said:
        os.waitpid(pid, 0)
        code_text, _, text = said.decode("utf-8", "replace").partition(" ")
        raise OSError(int(code_text), text)
    return pid


def no_core_file() -> None:
    """A crash would first write all its memory to disk, the model with it; it may ask for that."""
    import resource  # in the child alone: it costs memory

    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def answer(line: str) -> None:
    try:  # noqa: SIM105 - contextlib costs memory
        os.write(1, line.replace("\n", " ").encode() + b"\n")
    except OSError:  # the service has died meanwhile; the record tells the next one
        pass
    nothing = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)


def pump(log: Log, pid: int, output: int, woken: int) -> tuple[int, int]:
    """Carry the engine's output to the log until the engine ends.

    Returns its exit code, and a time in ticks after boot when it had ended but still had its
    number: whoever is in its session and started before is of its making.
    """
    poll = select.poll()
    poll.register(output, select.POLLIN)
    poll.register(woken, select.POLLIN)
    status, ended_ticks = None, 0
    while status is None:
        for file, _ in poll.poll():
            if file == woken:
                os.read(woken, 512)
                now = time.clock_gettime(time.CLOCK_BOOTTIME)
                done, code = os.waitpid(pid, os.WNOHANG)
                if done:
                    status, ended_ticks = os.waitstatus_to_exitcode(code), int(now * TICKS_PER_S)
                continue
            try:
                data = os.read(output, CHUNK)
            except BlockingIOError:
                continue
            if data:
                log.write(data)
            else:  # the engine closed its output and lives on
                poll.unregister(output)
    try:
        for _ in range(PIPE_CHUNKS):  # a child that got away may hold the pipe and write on
            if not (data := os.read(output, CHUNK)):
                break
            log.write(data)
    except BlockingIOError:
        pass
    return status, ended_ticks


def main() -> int:
    # A shim ends only with its engine; it never holds a terminal.
    for number in (SIGHUP, SIGINT, SIGTERM):
        signal(number, SIG_IGN)
    folder, mark, piece_bytes, argv, env = read_order()
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    set_wakeup_fd(wake)
    signal(SIGCHLD, lambda *_: None)
    pid = 0
    try:
        log = Log(folder, piece_bytes)
        record = Record(folder, mark, log.begin)
        record.write("starting")
        output, inlet = os.pipe2(os.O_CLOEXEC)
        pid = start(folder, argv, env, inlet)
        os.close(inlet)
        os.set_blocking(output, False)
        ticks = started_ticks(pid)
        running = f', "pid": {pid}, "started_ticks": {ticks}'
        record.write("running", running)
    except OSError as error:
        if pid:
            # What nobody can find again must not run.
            os.killpg(pid, SIGKILL)
            os.waitpid(pid, 0)
        answer(f"error {error.errno or 0} {error.strerror or error}")
        return 1
    answer(f"started {pid} {ticks}")
    code, ended_ticks = pump(log, pid, output, woken)
    try:  # noqa: SIM105 - contextlib costs memory
        record.write("ended", f'{running}, "code": {code}, "ended_ticks": {ended_ticks}')
    except OSError:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
