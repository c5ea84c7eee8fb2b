"""The service of this machine: whether it answers, how it is started, and how it is ended."""

import asyncio
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from engine.core.errors import ServiceUnreachable
from engine.host.paths import Paths

START_WITHIN_S = 60.0
"""It takes a tenth of a second, and much longer beside engines that take every core."""
END_WITHIN_S = 15.0
ALREADY = 75
"""The exit code of a service that found another one (EX_TEMPFAIL)."""


async def start_service(paths: Paths, environment: Mapping[str, str]) -> None:
    """Start one and wait until it answers, or until another one does."""
    paths.prepare()
    process = _spawn(paths, environment)
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline:
        if await answers(paths):
            # It outlives us; nobody is to wait for it or to warn that it still runs.
            process.returncode = 0 if process.returncode is None else process.returncode
            return
        ended = process.poll()
        if ended == ALREADY:
            # Another one starts just now, or ends: then it is our turn.
            await asyncio.sleep(0.1)
            process = _spawn(paths, environment)
        elif ended is not None:
            break
        await asyncio.sleep(0.02)
    process.returncode = 0 if process.returncode is None else process.returncode
    raise ServiceUnreachable(
        what="The service could not be started",
        why=_last_words(paths.service_log) or f"it did not answer within {START_WITHIN_S:g} s",
        do=f"Read {paths.service_log}",
    )


async def answers(paths: Paths) -> bool:
    """Whether a service of ours says anything at all."""
    try:
        reader, writer = await asyncio.open_unix_connection(paths.socket)
    except OSError:
        return False
    try:
        require_own(writer)
        return bool(await asyncio.wait_for(reader.read(1), 5.0))
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()


def require_own(writer: asyncio.StreamWriter) -> None:
    """Whoever serves the socket is this user: in a shared folder it might be anybody."""
    require_user(_peer(writer.get_extra_info("socket"))[1])


def require_user(uid: int) -> None:
    """Raises ServiceUnreachable where it is another one."""
    if uid != os.getuid():
        raise ServiceUnreachable(
            what="The service is not yours",
            why=f"the user with id {uid} serves its socket",
            do="Set XDG_RUNTIME_DIR to a folder of your own",
        )


def _spawn(paths: Paths, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    try:
        # Kept small: the service says little, and only what went wrong.
        too_long = paths.service_log.exists() and paths.service_log.stat().st_size > 1 << 20
        with paths.service_log.open("wb" if too_long else "ab") as log:
            paths.service_log.chmod(0o600)
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "engine.service"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=dict(environment),
                start_new_session=True,
            )
    except OSError as error:
        raise ServiceUnreachable(
            what="The service could not be started",
            why=f"{paths.service_log}: {error.strerror or error}",
            do="Free some disk space, or set XDG_STATE_HOME to a folder that can be written",
        ) from None


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""


def end_service(paths: Paths) -> bool:
    """End whoever serves the socket, of whatever version; False where nobody does.

    Its process id comes from the kernel (SO_PEERCRED), so nothing has to be understood. Engines
    go on, as after every end of a service.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(paths.socket))
        except OSError:
            return False
        pid, uid = _peer(probe)
        require_user(uid)
        process = os.pidfd_open(pid)
        try:
            if _peer(probe)[0] != pid or not probe.recv(1):
                return False
            signal.pidfd_send_signal(process, signal.SIGTERM)
            if not select.select([process], [], [], END_WITHIN_S)[0]:
                raise ServiceUnreachable(
                    what="The service does not end",
                    why=f"process {pid} still runs {END_WITHIN_S:g} s after SIGTERM",
                    do=f"`kill -9 {pid}`; engines go on",
                )
        finally:
            os.close(process)
    return True


def _peer(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other end."""
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    pid, uid, _ = struct.unpack("3i", credentials)
    return pid, uid
