"""`python -m engine.service`: the per-user process that owns the engines."""

import asyncio
import fcntl
import os
import signal
import sys

from engine.core.errors import ControlError
from engine.host.paths import Paths
from engine.service.server import Service

ALREADY = 75
"""EX_TEMPFAIL: another service of this user runs."""


def main() -> int:
    """Run until told to end, or until nothing runs and nobody looks."""
    environment = dict(os.environ)  # noqa: TID251 - the program's entry
    paths = Paths.of(environment)
    try:
        paths.prepare()
        lock = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except ControlError as error:
        print(error, file=sys.stderr)  # noqa: T201 - goes to the service's log
        return error.exit_code
    except OSError as error:
        print(f"{paths.lock}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 1
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another service of this user runs", file=sys.stderr)  # noqa: T201
        return ALREADY
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return asyncio.run(Service(paths, environment).run())


if __name__ == "__main__":
    sys.exit(main())
