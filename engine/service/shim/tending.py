"""One shim: starts its engine or takes over a running one, and stays until that has ended."""

import os
import select
import time
from _signal import SIG_DFL, SIGCHLD, SIGKILL, signal  # type: ignore[import-not-found]
from errno import ESRCH

from engine.service.shim.execution import (
    bind,
    execute,
    limit_core_file,
    put_back_score,
    put_mark,
    set_score,
)
from engine.service.shim.log import Log, Record, started_ticks
from engine.service.shim.order import CHUNK, Order, read_order

PIPE_CHUNKS = 32
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Engine:
    """A running one, and what keeps it: its output, its record, what tells of its end."""

    def __init__(self, watched: int, pid: int, ticks: int, output: int, record: Record) -> None:
        self.watched, self.pid, self.ticks, self.output = watched, pid, ticks, output
        os.set_blocking(output, False)
        self.record = record
        pipe = os.fstat(output).st_ino
        self._running = f', "pid": {pid}, "started_ticks": {ticks}, "pipe": {pipe}'
        record.write("running", self._running)

    def ended(self) -> None:
        """Write down how. Of an engine that another shim has started nobody tells."""
        now = int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS_PER_S)
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            # It had ended but still had its number: whoever is in its session and started before
            # is of its making.
            more = f', "code": {code}, "ended_ticks": {now}'
        except ChildProcessError:
            more = ', "code": null'
        try:
            self.record.write("ended", self._running + more)
        except OSError:
            pass


def started(order: Order, log: Log) -> Engine | None:
    """Bind, ask, and execute; None where nobody says `go`. OSError with nothing left running."""
    record = Record(order.folder, order.mark.decode(), log.begin)
    record.write("starting")
    say(bind(order.pus, order.policy))
    if os.read(0, 8) != b"go\n":
        return None
    output, inlet = os.pipe2(os.O_CLOEXEC)
    # One that can read as well: who holds it never writes to nobody, which would end it.
    both = os.open(f"/proc/self/fd/{inlet}", os.O_RDWR | os.O_CLOEXEC)
    os.close(inlet)
    os.chdir(order.folder)
    limit_core_file(allowed=order.core_files)
    own = set_score(order)
    try:
        pid = execute(order, both)
    finally:
        os.close(both)
        os.chdir("/")
        put_back_score(own)
    try:
        return Engine(os.pidfd_open(pid), pid, started_ticks(pid), output, record)
    except OSError:
        # What nobody can find again must not run.
        os.killpg(pid, SIGKILL)
        os.waitpid(pid, 0)
        raise


def relieved(order: Order) -> Engine:
    """Take the place of a shim that has died. OSError where that cannot be."""
    pid, ticks, pipe, begin = order.relief
    watched = os.pidfd_open(pid)
    if started_ticks(pid) != ticks:
        raise OSError(ESRCH, "it has ended")
    os.sched_setaffinity(0, order.pus)
    for number in (1, 2):
        path = f"/proc/{pid}/fd/{number}"
        # Never to take away what is not ours: looked at first, since to open it may do something.
        if os.stat(path).st_ino == pipe:
            output = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if os.fstat(output).st_ino == pipe:
                record = Record(order.folder, order.mark.decode(), begin)
                return Engine(watched, pid, ticks, output, record)
    raise OSError(ESRCH, "it has closed its output")


def say(line: str) -> None:
    try:
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


def pump(log: Log, output: int, watched: int) -> None:
    """Carry the engine's output to the log until the engine ends."""
    poll = select.poll()
    poll.register(output, select.POLLIN)
    poll.register(watched, select.POLLIN)
    runs = True
    while runs:
        for file, _ in poll.poll():
            if file == watched:
                runs = False
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


def tend() -> int:
    """Be the shim of one engine, whose order comes on file descriptor 0."""
    signal(SIGCHLD, SIG_DFL)  # the nursery ignores it; the engine's end is ours to collect
    if (order := read_order()) is None:
        return 0
    me = os.getpid()
    try:
        put_mark(order.mark)
        log = Log(order.folder, order.piece_bytes)
        engine = relieved(order) if order.relief else started(order, log)
    except OSError as error:
        answer(f"error {error.errno or 0} {error.strerror or error}")
        return 1
    if engine is None:
        return 0
    answer(f"started {engine.pid} {engine.ticks} {me} {started_ticks(me)}")
    engine.record.settle()
    pump(log, engine.output, engine.watched)
    engine.ended()
    return 0
