"""The one small process that stays beside an engine: pumps its log, records its exit code.

It is forked, and so made in a millisecond, by a nursery that the service starts once: this file,
run by path in an isolated interpreter (`python -I -S shim.py`) with as few modules as can be,
because its memory is paid once per engine. The nursery ends with the service; a shim ends only
with its engine. It is in the engine's place from the start: affinity and memory policy are its own
first, and inherited.

The talk with the launcher, over a connection of its own for each start:

    launcher  the order, as `pack_order` writes it
    shim      bound ERRNO PUS ERRNO MODE MASK      what the kernel says, and what took
    launcher  go
    shim      started PID TICKS SHIM_PID SHIM_TICKS  or  error ERRNO TEXT

Before it asks for its `go` it has put the start's mark into its environment, so that a service
which comes after one that was killed finds it; and without a `go` it starts nothing. So an engine
is never started twice, whenever the service dies. After that it outlives the service: the engine's
output goes through it into a bounded log, so a full disk or a dead service never reaches the
engine.
"""

import ctypes
import gc
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
from _socket import CMSG_SPACE, socket  # `socket` would import enum

CHUNK = 1 << 16
PIPE_CHUNKS = 32
MARK, MARK_BYTES = b"SLOTDECK_SHIM", 64
"""The nursery begins with a mark of so many zeros, and with nothing else in its environment."""
MASK_BITS = 1024
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


class Order:
    """What to start and how; ValueError where it is not whole."""

    def __init__(self, text: bytes) -> None:
        words = iter(text.split(b"\0"))
        self.folder, self.mark = os.fsdecode(next(words)), next(words)
        self.piece_bytes = int(next(words))
        self.pus = [int(pu) for pu in next(words).split(b",")]
        self.policy = [int(word, 16) for word in next(words).split()]
        """The calls to set and to get it, the mode and the mask of nodes; or nothing."""
        self.core_files = next(words) == b"core"
        files = [next(words) for _ in range(3 * int(next(words)))]
        self.files = list(zip(files[::3], files[1::3], files[2::3], strict=True))
        """Written by the engine before it is executed: file, text, and "must" or "may"."""
        self.argv = [next(words) for _ in range(int(next(words)))]
        *settings, end = words
        if end != b"end":
            raise ValueError("the order is cut")
        pairs = (one.partition(b"=") for one in settings)
        self.env = {name: value for name, _, value in pairs}


def read_order() -> Order | None:
    """Begins with its length; None where the launcher has gone."""
    text = b""
    while b"\n" not in text or len(text) < int(text[: text.index(b"\n")]) + text.index(b"\n") + 1:
        if not (data := os.read(0, CHUNK)):
            return None
        text += data
    return Order(text[text.index(b"\n") + 1 :])


def put_mark(mark: bytes) -> None:
    """Into /proc/PID/environ, which shows the memory where the environment was at first."""
    libc.getenv.restype = ctypes.c_void_p
    ctypes.memmove(libc.getenv(MARK), mark.ljust(MARK_BYTES, b"\0"), MARK_BYTES)


def bind(pus: list[int], policy: list[int]) -> str:
    """Affinity and memory policy of this process: for each the error, and what it is after."""
    affinity_error = policy_error = mode = mask = 0
    try:
        os.sched_setaffinity(0, pus)
    except OSError as error:
        affinity_error = error.errno or -1
    if policy:
        to_set, to_get, wanted, nodes = policy
        bits = nodes.to_bytes(MASK_BITS // 8, sys.byteorder)
        size = ctypes.c_ulong(MASK_BITS + 1 if nodes else 0)
        if libc.syscall(ctypes.c_long(to_set), wanted, bits if nodes else None, size) < 0:
            policy_error = ctypes.get_errno()
        got, found = ctypes.c_int(), ctypes.create_string_buffer(MASK_BITS // 8)
        size = ctypes.c_ulong(MASK_BITS)
        at = ctypes.c_ulong(0)
        if libc.syscall(ctypes.c_long(to_get), ctypes.byref(got), found, size, None, at) < 0:
            policy_error = policy_error or ctypes.get_errno()
        mode, mask = got.value, int.from_bytes(found.raw, sys.byteorder)
    got_pus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    return f"bound {affinity_error} {got_pus} {policy_error} {mode} {mask:x}"


def start(order: Order, output: int) -> int:
    """Fork and exec; returns the pid, or raises OSError with what exec said."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        doing = b""
        try:
            os.setsid()
            for number in (SIGHUP, SIGINT, SIGTERM, SIGPIPE, SIGXFSZ, SIGCHLD):
                signal(number, SIG_DFL)
            nothing = os.open("/dev/null", os.O_RDONLY)
            os.dup2(nothing, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(order.folder)
            for path, text, need in order.files:
                doing = path + b": "
                try:
                    write_file(path, text)
                except OSError:
                    if need == b"must":
                        raise
            doing = b""
            # Kernels before 6.2 forget it when a process enters a group with a cpuset.
            os.sched_setaffinity(0, order.pus)
            limit_core_file(allowed=order.core_files)
            os.execve(order.argv[0], order.argv, order.env)
        except BaseException as error:
            code = getattr(error, "errno", None) or 0
            why = getattr(error, "strerror", None) or error
            os.write(tell, f"{code} {os.fsdecode(doing)}{why}".encode())
        os._exit(127)
    os.close(tell)
    said = os.read(told, 4096)
    os.close(told)
    if said:
        os.waitpid(pid, 0)
        code_text, _, why = said.decode("utf-8", "replace").partition(" ")
        raise OSError(int(code_text), why)
    return pid


def write_file(path: bytes, text: bytes) -> None:
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, text)
    finally:
        os.close(file)


def limit_core_file(*, allowed: bool) -> None:
    """A crash would first write all its memory to disk, the model with it; it may ask for that."""
    import resource  # in the child alone: it costs memory

    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard if allowed else 0, hard))


def say(line: str) -> None:
    try:  # noqa: SIM105 - contextlib costs memory
        os.write(0, line.replace("\n", " ").encode() + b"\n")
    except OSError:  # the service has died meanwhile; the record tells the next one
        pass


def answer(line: str) -> None:
    """The last word: after it nothing is held that the service has made."""
    say(line)
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


def tend() -> int:
    """Be the shim of one engine, whose order comes on file descriptor 0."""
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    set_wakeup_fd(wake)
    signal(SIGCHLD, lambda *_: None)
    if (order := read_order()) is None:
        return 0
    pid = 0
    me = os.getpid()
    try:
        put_mark(order.mark)
        log = Log(order.folder, order.piece_bytes)
        record = Record(order.folder, order.mark.decode(), log.begin)
        record.write("starting")
        say(bind(order.pus, order.policy))
        if os.read(0, 8) != b"go\n":
            return 0
        output, inlet = os.pipe2(os.O_CLOEXEC)
        pid = start(order, inlet)
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
    answer(f"started {pid} {ticks} {me} {started_ticks(me)}")
    code, ended_ticks = pump(log, pid, output, woken)
    try:  # noqa: SIM105 - contextlib costs memory
        record.write("ended", f'{running}, "code": {code}, "ended_ticks": {ended_ticks}')
    except OSError:
        pass
    return 0


def main() -> int:
    """Be the nursery: a shim for each connection that comes over file descriptor 0."""
    # Neither this nor a shim holds a terminal; both know by themselves when to end.
    for number in (SIGHUP, SIGINT, SIGTERM):
        signal(number, SIG_IGN)
    signal(SIGCHLD, SIG_IGN)  # the kernel collects the shims
    service = socket(fileno=os.dup(0))
    gc.freeze()  # what is never looked at again stays shared with the shims
    while True:
        data, passed, *_ = service.recvmsg(1, CMSG_SPACE(4))
        if not data:
            return 0
        connection = int.from_bytes(passed[0][2][:4], sys.byteorder)
        os.dup2(connection, 0)
        os.close(connection)
        try:
            pid = os.fork()
        except OSError as error:
            say(f"error {error.errno} {error.strerror}")
            pid = -1
        if pid == 0:
            try:
                service.close()
                os.setsid()
                os._exit(tend())
            finally:
                os._exit(1)
        os.dup2(service.fileno(), 0)


libc = ctypes.CDLL(None, use_errno=True)

if __name__ == "__main__":
    sys.exit(main())
