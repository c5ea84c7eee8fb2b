"""`python -m engine.service`: the per-user process that owns the engines."""

import asyncio
import ctypes
import fcntl
import os
import signal
import socket
import sys
import time
from pathlib import Path

from engine.core.errors import ControlError
from engine.core.lifecycle import Policy
from engine.host.paths import Paths
from engine.host.root import HostRoot
from engine.service.connection import SLOW_CLIENT_S
from engine.service.server import IDLE_EXIT_S, Service

ALREADY = 75
"""EX_TEMPFAIL: another service of this user runs."""
_DYING_S = 3.0
_M_ARENA_MAX, _M_TRIM_THRESHOLD = -8, -1
"""Of mallopt(3)."""
_TRIM_BYTES = 128 << 10


def main(
    *,
    idle_exit_s: float = IDLE_EXIT_S,
    slow_client_s: float = SLOW_CLIENT_S,
    patience: Policy | None = None,
    root: HostRoot | None = None,
) -> int:
    """Run until told to end, or until nothing runs and nobody looks."""
    _keep_memory_small()
    deadline = time.monotonic() + _DYING_S
    environment = dict(os.environ)  # noqa: TID251 - the program's entry
    paths = Paths.of(environment)
    try:
        paths.prepare()
        # A process that ends closes the lower number first: who gets the second lock of one
        # that ends, the socket's, finds its first free too.
        journal_lock, socket_lock = _open(paths.state / "service.lock"), _open(paths.lock)
    except ControlError as error:
        return _say(str(error), error.exit_code)
    except OSError as error:
        return _say(f"{error.filename}: {error.strerror}", 1)
    # One that was killed holds its locks until its last thread has gone.
    while not (free := _locked(socket_lock)) and not _somebody_answers(paths):
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    if not free or _somebody_answers(paths):
        return _say("another service of this user runs", ALREADY)
    while not (free := _locked(journal_lock)) and time.monotonic() < deadline:
        if _somebody_answers(paths):
            # Its runtime folder had been removed, as by the last logout; now it is back.
            return _say("another service of this user runs", ALREADY)
        time.sleep(0.02)
    if not free:
        # One journal, one writer: e.g. a cron job without the login's XDG_RUNTIME_DIR.
        return _say(
            f"The service cannot start: another one works on {paths.state} with another socket "
            f"than {paths.socket}. Set XDG_RUNTIME_DIR as it was where that one was started",
            1,
        )
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    service = Service(
        paths,
        environment,
        idle_exit_s=idle_exit_s,
        slow_client_s=slow_client_s,
        patience=patience,
        root=root,
    )
    return asyncio.run(service.run())


def _keep_memory_small() -> None:
    """One heap for all threads, trimmed: with one each, what short work leaves in them adds up.

    Before the first thread. Other C libraries than glibc do not have this.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _locked(lock: int) -> bool:
    """Take it for as long as we live; False when another process holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _somebody_answers(paths: Paths) -> bool:
    """A lock file can be deleted under its holder; its socket then still tells."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5.0)
        try:
            probe.connect(str(paths.socket))
            return bool(probe.recv(1))
        except OSError:
            return False


def _say(text: str, code: int) -> int:
    print(text, file=sys.stderr)  # noqa: T201 - goes to the service's log
    return code


if __name__ == "__main__":
    sys.exit(main())
