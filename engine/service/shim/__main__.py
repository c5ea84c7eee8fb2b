"""The one small process that stays beside an engine: pumps its log, records its exit code.

It is forked, and so made in a millisecond, by a nursery that the service starts once: this file,
run by path in an isolated interpreter (`python -I -S …/shim/__main__.py`) with as few modules as
can be, because its memory is paid once per engine. The nursery ends with the service; a shim ends
only with its engine. It is in the engine's place from the start: affinity and memory policy are
its own first, and inherited.

The talk with the launcher, over a connection of its own for each start:

    launcher  the order, as `pack_order` writes it
    shim      bound ERRNO PUS ERRNO MODE MASK      what the kernel says, and what took
    launcher  go
    shim      started PID TICKS SHIM_PID SHIM_TICKS  or  error ERRNO TEXT

Before it asks for its `go` it has put the start's mark into its environment, so that a service
which comes after one that was killed finds it; and without a `go` it starts nothing. So an engine
is never started twice, whenever the service dies. After that it outlives the service: the engine's
output goes through it into a bounded log, so a full disk or a dead service never reaches the
engine. Nor does the shim's own death: the engine can read its output itself, so nothing breaks but
waits once the pipe is full, until the service has put another shim to it (an order with `relief`).
"""

import gc
import os
import sys
from _signal import (  # type: ignore[import-not-found]
    SIG_IGN,
    SIGCHLD,
    SIGHUP,
    SIGINT,
    SIGTERM,
    signal,
)
from _socket import CMSG_SPACE, socket  # `socket` would import enum

if not __package__:
    # Run by path in an interpreter that knows nothing else: find our own siblings.
    _engine = type(sys)("engine")
    _engine.__path__ = [__file__.rpartition("/service/")[0]]
    sys.modules["engine"] = _engine

from engine.service.shim.tending import say, tend


def main() -> int:
    """Be the nursery: fork a shim for each byte that comes over file descriptor 0.

    A shim waits at the door, a socket that all of them share, for somebody to connect.
    """
    # Neither this nor a shim holds a terminal; both know by themselves when to end.
    for number in (SIGHUP, SIGINT, SIGTERM):
        signal(number, SIG_IGN)
    signal(SIGCHLD, SIG_IGN)  # the kernel collects the shims
    door = socket(fileno=int(sys.argv[1]))
    gc.freeze()  # what is never looked at again stays shared with the shims
    asked = os.dup(0)
    while os.read(asked, 1):
        try:
            pid = os.fork()
        except OSError as error:
            if connected(door):
                say(f"error {error.errno} {error.strerror}")
            os.dup2(asked, 0)
            pid = -1
        if pid == 0:
            try:
                os.close(asked)
                os.setsid()
                if connected(door):
                    door.close()
                    os._exit(tend())
            finally:
                os._exit(1)
    return 0


def connected(door: socket) -> bool:
    """Take in whoever comes, as file descriptor 0; False where nobody does any more."""
    _, passed, *_ = door.recvmsg(1, CMSG_SPACE(4))
    if not passed:
        return False
    connection = int.from_bytes(passed[0][2][:4], sys.byteorder)
    os.dup2(connection, 0)
    os.close(connection)
    return True


if __name__ == "__main__":
    sys.exit(main())
