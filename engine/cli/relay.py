"""Join standard input and output to the service's socket, which is what --host runs on a server.

The service is started when there is none. Bytes pass as they are, as fast as the slower side takes
them, until either side ends. With --readonly the service refuses every change to whoever speaks
through it: as the `command=` of a key in ~/.ssh/authorized_keys it lets a colleague look only.
"""

import argparse
import contextlib
import os
import socket
import threading
from collections.abc import Mapping

from engine import __version__
from engine.client import connect
from engine.core.errors import ServiceUnreachable
from engine.host.paths import Paths
from engine.wire import PROTOCOL, Hello, pack

_AT_ONCE = 1 << 16


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument(
        "--readonly", action="store_true", help="let nothing be changed through this relay"
    )


async def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Copy until an end."""
    paths = Paths.of(environment)
    client = await connect(environment=environment)  # also refuses a socket that is not ours
    await client.aclose()
    with socket.socket(socket.AF_UNIX) as service:
        try:
            service.connect(str(paths.socket))
        except OSError as error:
            raise ServiceUnreachable(
                what="The service cannot be reached",
                why=error.strerror or str(error),
                do="Try again",
            ) from None
        if asked.readonly:
            service.sendall(pack(Hello(PROTOCOL, __version__, name="relay", readonly=True)))
        inward = threading.Thread(target=_inward, args=(service,), daemon=True)
        inward.start()
        _outward(service)
    return 0


def _inward(service: socket.socket) -> None:
    """Standard input to the service; its end is told, and the service then ends the rest."""
    with contextlib.suppress(OSError):
        while data := os.read(0, _AT_ONCE):
            service.sendall(data)
    with contextlib.suppress(OSError):
        service.shutdown(socket.SHUT_WR)


def _outward(service: socket.socket) -> None:
    """What the service says to standard output; blocks as long as nobody takes it."""
    with contextlib.suppress(OSError):
        while data := service.recv(_AT_ONCE):
            while data:
                data = data[os.write(1, data) :]
