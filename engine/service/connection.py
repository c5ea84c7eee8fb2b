"""One client of the control socket: both sides say who they are, then one call after the other."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from engine import __version__
from engine.core.errors import ControlError
from engine.wire import HOME, PROTOCOL, Failure, Hello, Line, Request, pack, unpack

SLOW_CLIENT_S = 10.0
"""For its first request, and for every answer to be taken."""
IDLE_CLIENT_S = 300.0
"""Between two calls: of a client whose host is gone nothing else may ever tell."""
LONGEST_NAME = 80
_LOOKS = frozenset(
    {
        *("machine", "snapshot", "snapshots", "past", "offer", "verify"),
        *("command", "catalogue", "log", "ask"),
    }
)
"""What a read-only client may call. `layout` holds the secrets of `env`: it is not among them."""


class ClientGone(Exception):
    """Nobody is there to answer to."""


Gone = asyncio.Future[None]
"""Done when the client has left."""


class Outbox:
    """Lines to one client; one that does not take them in time is given up (TimeoutError)."""

    def __init__(self, writer: asyncio.StreamWriter, slow_client_s: float) -> None:
        self._writer = writer
        self.slow_client_s = slow_client_s

    async def send(self, value: object) -> None:
        """One line."""
        self._writer.write(pack(value))
        try:
            await asyncio.wait_for(self._writer.drain(), self.slow_client_s)
        except TimeoutError:
            self._writer.transport.abort()  # to close it would wait until all is taken
            raise

    async def fail(self, error: ControlError) -> None:
        """The error's words, if anybody still listens."""
        with contextlib.suppress(OSError, TimeoutError):
            await self.send(Failure(type(error).__name__, error.what, error.why, error.do))


Answer = Callable[[Request, Outbox, Gone, str], Awaitable[None]]
"""With the name of whoever asks."""


class NotAllowed(ControlError):
    """A read-only client asked for a change."""


async def converse(
    reader: asyncio.StreamReader,
    out: Outbox,
    answer: Answer,
    on_bug: Callable[[Exception], None],
) -> None:
    """Answer calls until the client leaves, stalls, or cannot be understood any more."""
    inbox = Inbox(reader)
    talk = _Talk(out, answer, inbox.gone)
    try:
        await out.send(_hello())
        while True:
            line = await inbox.line_within(IDLE_CLIENT_S if talk.has_asked else out.slow_client_s)
            if not line:
                return
            try:
                await talk.take(line)
            except ControlError as error:
                await out.fail(error)
                if isinstance(error, _AnotherProtocol):
                    return
            except msgspec.DecodeError as error:
                await out.fail(talk.not_understood(str(error)))
    except asyncio.LimitOverrunError as error:
        await out.fail(talk.not_understood(str(error)))
    except (OSError, TimeoutError, ClientGone):
        pass  # a client that left or stalled harms only itself
    except Exception as error:  # noqa: BLE001 - one call's bug must not become silence
        on_bug(error)
        await out.fail(_bug(error))
    finally:
        await inbox.close()


class _Talk:
    """What is known of the client so far."""

    def __init__(self, out: Outbox, answer: Answer, gone: Gone) -> None:
        self._out = out
        self._answer = answer
        self._gone = gone
        self._peer: Hello | None = None
        self.has_asked = False

    async def take(self, line: bytes) -> None:
        """Carry out one line. Raises ControlError or msgspec.DecodeError."""
        kind = msgspec.json.decode(line, type=Line).kind
        if kind == Hello.__name__:
            self._greet(unpack(line, Hello))
            return
        if self._peer is None:
            raise ControlError(
                what="The service does not know who speaks",
                why=f"it is {_OURS}, and the other side began without saying its version",
                do="Use the same version on both sides: close the panel and open it again",
            )
        request = unpack(line, Request)
        self.has_asked = True
        if self._peer.readonly:
            _refuse_changes(request)
        await self._answer(request, self._out, self._gone, self._peer.name[:LONGEST_NAME])

    def _greet(self, hello: Hello) -> None:
        if hello.protocol != PROTOCOL:
            raise _AnotherProtocol(
                what="The service is another version of slotdeck",
                why=f"the service is {_OURS}, the other side {hello}",
                do="Use the same version on both sides, or end the service with `slotdeck "
                "service stop`; engines go on",
            )
        # A relay may have promised before the client speaks: nobody takes that back.
        readonly = hello.readonly or (self._peer is not None and self._peer.readonly)
        self._peer = replace(hello, readonly=readonly)

    def not_understood(self, why: str) -> ControlError:
        """For lines that cannot be read: both versions, since they are the likeliest reason."""
        peer = "did not say its version" if self._peer is None else f"is {self._peer}"
        return ControlError(
            what="The service did not understand the request",
            why=f"{why}; the service is {_OURS}, the other side {peer}",
            do="Use the same version on both sides, or restart the service: `slotdeck service "
            "stop`; engines go on",
        )


def _hello() -> Hello:
    return Hello(PROTOCOL, __version__, home=str(Path(HOME).expanduser()))


class _AnotherProtocol(ControlError):
    pass


_OURS = Hello(PROTOCOL, __version__)


class Inbox:
    """Lines as they come; at most one waits, and the client's end is known during a call too."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        loop = asyncio.get_running_loop()
        self.gone: Gone = loop.create_future()
        self._lines: asyncio.Queue[bytes | asyncio.LimitOverrunError] = asyncio.Queue(1)
        self._reading = loop.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        end: bytes | asyncio.LimitOverrunError = b""
        try:
            while True:
                await self._lines.put(await reader.readuntil(b"\n"))
        except asyncio.LimitOverrunError as error:
            end = error
        except (OSError, asyncio.IncompleteReadError):
            self.gone.set_result(None)
        await self._lines.put(end)

    async def line(self) -> bytes:
        """The next one; empty at the end. Raises LimitOverrunError."""
        got = await self._lines.get()
        if isinstance(got, asyncio.LimitOverrunError):
            raise got
        return got

    async def line_within(self, seconds: float) -> bytes:
        """The same; TimeoutError when none came while we were awake: where the machine's load
        stops us for long, what came meanwhile is looked at before time is said to be over."""
        waiting = asyncio.ensure_future(self.line())
        try:
            for _ in range(2):
                if (await asyncio.wait([waiting], timeout=seconds / 2))[0]:
                    return waiting.result()
            raise TimeoutError
        finally:
            waiting.cancel()

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


def _refuse_changes(request: Request) -> None:
    if request.call in _LOOKS and not request.arguments.get("repair"):
        return
    raise NotAllowed(
        what="Nothing was changed",
        why=f"this connection is read-only, and {_in_words(request)}",
        do="Leave --readonly out; a relay or key that may only look stays so",
    )


def _in_words(request: Request) -> str:
    match request.call:
        case "apply":
            return "an offer that is applied changes what runs"
        case "verify":
            return "a repair moves threads and pages"
        case "layout":
            return "a layout that is saved holds the secrets of its engines"
        case "stop_service":
            return "the service would end"
        case other:
            return f"{other!r} is not known to change nothing"


def refuse_strangers(writer: asyncio.StreamWriter) -> None:
    """Only this user's processes may speak to us (SO_PEERCRED, unix(7)). Raises ClientGone."""
    peer = writer.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    if uid != os.getuid():
        raise ClientGone


def _bug(error: Exception) -> ControlError:
    return ControlError(
        what="slotdeck has a bug",
        why=repr(error),
        do="Please report it; engines go on",
    )
