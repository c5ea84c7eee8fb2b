"""The near end of the door: Control over the service's socket, which it starts when needed."""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from engine.control import (
    AnswerEnd,
    AnswerPiece,
    Change,
    HeldLayout,
    LogLines,
    Offer,
    Verification,
)
from engine.core.codec import to_builtins
from engine.core.errors import ControlError, ServiceUnreachable
from engine.core.status import Snapshot
from engine.core.topology import Machine
from engine.host.paths import Paths
from engine.wire import LIMIT_BYTES, PROTOCOL, Done, Hello, Line, Request, pack, unpack

START_WITHIN_S = 15.0
ALREADY = 75
"""The exit code of a service that found another one (EX_TEMPFAIL)."""
_ANSWER_WITHIN_S = 60.0
_REPAIR_WITHIN_S = 3600.0

T = TypeVar("T")


class ServiceClient:
    """Control over the service's socket; every call is a connection of its own."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    async def machine(self) -> Machine:
        """The machine's facts as the service reads them now."""
        return await self._one("machine", {}, Machine)

    async def snapshot(self) -> Snapshot:
        """The newest snapshot."""
        return await self._one("snapshot", {}, Snapshot)

    async def snapshots(self) -> AsyncIterator[Snapshot]:
        """Snapshots as they are taken; ends when the service goes away."""
        async with self._call("snapshots", {}) as reader:
            while line := await _line(reader):
                yield unpack(line, Snapshot)

    async def offer(self, change: Change) -> Offer:
        """What the change would do; nothing happens yet."""
        arguments = {"kind": type(change).__name__, "change": to_builtins(change)}
        return await self._one("offer", arguments, Offer)

    async def apply(self, offer: Offer) -> None:
        """Begin what was offered."""
        await self._one("apply", {"id": offer.id}, Done)

    async def verify(self, names: tuple[str, ...] = (), *, repair: bool = False) -> Verification:
        """What is asked against what is got; a repair may take as long as its pages need."""
        arguments = {"names": names, "repair": repair}
        return await self._one("verify", arguments, Verification, within_s=_REPAIR_WITHIN_S)

    async def layout(self) -> HeldLayout:
        """What is wished now, to be saved as a layout file."""
        return await self._one("layout", {}, HeldLayout)

    async def log(self, name: str, *, offset: int = -1, limit_bytes: int = 65536) -> LogLines:
        """A piece of an instance's log."""
        arguments = {"name": name, "offset": offset, "limit_bytes": limit_bytes}
        return await self._one("log", arguments, LogLines)

    async def ask(
        self, name: str, prompt: str, *, max_tokens: int = 128
    ) -> AsyncIterator[AnswerPiece | AnswerEnd]:
        """One chat prompt, streamed; closing the iterator aborts it at the engine."""
        arguments = {"name": name, "prompt": prompt, "max_tokens": max_tokens}
        async with self._call("ask", arguments) as reader:
            while line := await _line(reader):
                if msgspec.json.decode(line, type=Line).kind == AnswerPiece.__name__:
                    yield unpack(line, AnswerPiece)
                else:
                    yield unpack(line, AnswerEnd)

    async def stop_service(self) -> None:
        """End the service; engines go on."""
        await self._one("stop_service", {}, Done)

    async def aclose(self) -> None:
        """Nothing is held between calls."""

    async def _one(
        self,
        call: str,
        arguments: dict[str, Any],
        kind: type[T],
        *,
        within_s: float = _ANSWER_WITHIN_S,
    ) -> T:
        try:
            async with asyncio.timeout(within_s), self._call(call, arguments) as reader:
                line = await _line(reader)
        except TimeoutError:
            raise _unreachable(f"it did not answer within {within_s:g} s") from None
        if not line:
            raise _unreachable("it closed the connection without an answer")
        try:
            return unpack(line, kind)
        except msgspec.DecodeError as error:
            raise _unreachable(f"its answer cannot be read: {error}") from None

    @contextlib.asynccontextmanager
    async def _call(
        self, call: str, arguments: dict[str, Any]
    ) -> AsyncIterator[asyncio.StreamReader]:
        try:
            reader, writer = await asyncio.open_unix_connection(
                self._paths.socket, limit=LIMIT_BYTES
            )
        except OSError as error:
            raise _unreachable(error.strerror or str(error)) from None
        try:
            _require_own(writer)
            hello = unpack(await _line(reader), Hello)
            if hello.protocol != PROTOCOL:
                raise ServiceUnreachable(
                    what="The service speaks another protocol",
                    why=f"it is slotdeck {hello.version}, protocol {hello.protocol}; "
                    f"this side speaks {PROTOCOL}",
                    do="Restart the service: `slotdeck service stop`; engines go on",
                )
            writer.write(pack(Request(call, arguments)))
            await writer.drain()
            yield reader
        except (OSError, msgspec.DecodeError) as error:
            raise _unreachable(str(error) or type(error).__name__) from None
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def connect(
    *,
    start: bool = True,
    paths: Paths | None = None,
    environment: Mapping[str, str] | None = None,
) -> ServiceClient:
    """A client of this user's service, which is started when there is none.

    With `start=False` a missing service raises ServiceUnreachable.
    """
    if environment is None:
        environment = dict(os.environ)  # noqa: TID251 - the entry for both faces
    paths = paths or Paths.of(environment)
    client = ServiceClient(paths)
    if await _answers(paths):
        return client
    if not start:
        raise _unreachable("no service runs")
    paths.prepare()
    process = _spawn(paths, environment)
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline:
        if await _answers(paths):
            # It outlives us; nobody is to wait for it or to warn that it still runs.
            process.returncode = 0 if process.returncode is None else process.returncode
            return client
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


async def _answers(paths: Paths) -> bool:
    try:
        reader, writer = await asyncio.open_unix_connection(paths.socket)
    except OSError:
        return False
    try:
        _require_own(writer)
        return bool(await asyncio.wait_for(reader.readline(), 5.0))
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()


def _require_own(writer: asyncio.StreamWriter) -> None:
    """Whoever serves the socket is this user: in a shared folder it might be anybody."""
    credentials = writer.get_extra_info("socket").getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    _, uid, _ = struct.unpack("3i", credentials)
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


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return b""
    except asyncio.LimitOverrunError:
        raise _unreachable("its answer is too long") from None


def _unreachable(why: str) -> ControlError:
    return ServiceUnreachable(
        what="The service cannot be reached",
        why=why,
        do="Any `slotdeck up` or the panel starts it again; engines go on without it",
    )
