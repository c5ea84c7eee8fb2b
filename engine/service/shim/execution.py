"""From a bound shim to a running engine: what is set before it is executed, and the exec."""

import ctypes
import os
import sys

# `signal` would import enum, and a third of our own memory with it.
from _signal import (  # type: ignore[import-not-found]
    SIG_DFL,
    SIGCHLD,
    SIGHUP,
    SIGINT,
    SIGPIPE,
    SIGTERM,
    SIGXFSZ,
    signal,
)

from engine.service.shim.order import Order

SIGNALS = (SIGHUP, SIGINT, SIGTERM, SIGPIPE, SIGXFSZ, SIGCHLD)
"""What Python or we have changed; an engine has them as they were."""
SCORE = "/proc/self/oom_score_adj"
RLIMIT_CORE = 4
MASK_BITS = 1024
MARK, MARK_BYTES = b"SLOTDECK_SHIM", 64
"""The nursery begins with a mark of so many zeros, and with nothing else in its environment."""

libc = ctypes.CDLL(None, use_errno=True)


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


def execute(order: Order, output: int) -> int:
    """The engine's pid. Raises OSError with what exec said."""
    path, argv, env = order.argv[0], order.argv, order.env
    if order.groups:
        return execute_in_groups(order, output)
    to_null = (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
    to_log = [(os.POSIX_SPAWN_DUP2, output, number) for number in (1, 2)]
    # Ten times as quick as a fork, which copies what it then throws away.
    return os.posix_spawn(
        path, argv, env, file_actions=[to_null, *to_log], setsid=True, setsigdef=SIGNALS
    )


def execute_in_groups(order: Order, output: int) -> int:
    """The same, with the control groups entered by the engine itself."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        doing = b""
        try:
            os.setsid()
            for number in SIGNALS:
                signal(number, SIG_DFL)
            nothing = os.open("/dev/null", os.O_RDONLY)
            os.dup2(nothing, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            for path in order.groups:
                doing = path + b": "
                write_file(path, b"0")
            doing = b""
            # Kernels before 6.2 forget it when a process enters a group with a cpuset.
            os.sched_setaffinity(0, order.pus)
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


def set_score(order: Order) -> bytes:
    """Ours for a moment, since it is inherited; returns what it was. Raises OSError."""
    with open(SCORE, "rb") as file:
        own = file.read()
    try:
        write_file(SCORE, order.score)
    except OSError as error:
        if order.score_must:
            raise OSError(error.errno, f"{SCORE}: {error.strerror}") from None
    return own


def put_back_score(own: bytes) -> None:
    try:
        write_file(SCORE, own)
    except OSError:  # then it stays as soon to be ended as its engine
        pass


def write_file(path: bytes | str, text: bytes) -> None:
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, text)
    finally:
        os.close(file)


def limit_core_file(*, allowed: bool) -> None:
    """A crash would first write all its memory to disk, the model with it; it may ask for that.

    Of ours, and inherited.
    """
    limit = (ctypes.c_ulong * 2)()  # setrlimit(2); the module `resource` costs memory
    libc.getrlimit(RLIMIT_CORE, limit)
    limit[0] = limit[1] if allowed else 0
    libc.setrlimit(RLIMIT_CORE, limit)
