"""One HTTP/1.1 request on one connection, with each read stamped before it is looked at."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, cast
from urllib.parse import quote, urlsplit

HEAD_BYTES: Final = 64 << 10
SIZE_LINE_BYTES: Final = 1 << 10


class ExchangeError(Exception):
    """The exchange broke; the message is the reason, for a reader."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request goes."""

    host: str
    port: int
    target: str
    """Path and query as they stand in the request line."""

    @property
    def host_header(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def shown(self) -> str:
        """For messages: without the query, which may carry a secret."""
        return f"http://{self.host_header}{self.target.partition('?')[0]}"


def parse_url(url: str) -> Place:
    """ValueError, with a reason that does not repeat the URL, where it is not plain http."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("it is not a URL") from None
    if parts.scheme != "http":
        raise ValueError(f"it is not plain http but {parts.scheme or 'without a scheme'}")
    if not parts.hostname:
        raise ValueError("it names no host")
    if parts.username is not None:
        raise ValueError("it carries a user name; keys go in a header")
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = f"?{quote(parts.query, safe='/%:@!$&()*+,;=~-._?')}" if parts.query else ""
    # "or 80" would turn port 0 into another one.
    return Place(parts.hostname, 80 if port is None else port, path + query)


class Taker(Protocol):
    """What is done with an answer as it arrives."""

    def head(self, status: int, headers: Mapping[str, str]) -> None: ...

    def body(self, at: float, data: bytes) -> float | None:
        """The seconds after which nothing more is wanted; None to take the rest."""


class Exchange(asyncio.Protocol):
    """Framing by content length, chunks or the end of the connection.

    `done` resolves when the body is complete and fails with ExchangeError when it cannot be. One
    connection a request: engines answer so seldom that keeping connections gains nothing, and a
    closed socket is the one way to tell every engine that the answer is not wanted any more.
    """

    def __init__(
        self, taker: Taker, *, limit_bytes: int | None, clock: Callable[[], float]
    ) -> None:
        loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = loop.create_future()
        self.status = 0
        self._lost: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._clock = clock
        self._taker = taker
        self._limit = limit_bytes
        self._taken = 0
        self._transport: asyncio.Transport | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._body: Callable[[float, bytes], None] | None = None
        self._kept = b""
        self._left = 0
        self._line_end_left = 0

    def send(self, request: bytes) -> float:
        """Hands the request to the socket and says when."""
        assert self._transport is not None, "send comes after the connection"
        self._heard_at = sent_at = self._clock()
        self._transport.write(request)
        return sent_at

    def watch_silence(self, limit_s: float) -> None:
        """Fails the exchange after so long without a byte. One timer, not one for each read."""
        quiet_s = self._clock() - self._heard_at
        if self.done.done():
            return
        if quiet_s >= limit_s:
            self._fail(f"silent for {limit_s:g} s")
            return
        self._silence = self._loop.call_later(limit_s - quiet_s, self.watch_silence, limit_s)

    async def close(self) -> None:
        """Returns when the socket is closed, also where the exchange was cancelled half-way."""
        for timer in (self._silence, self._ending):
            if timer is not None:
                timer.cancel()
        if not self.done.cancel() and not self.done.cancelled():
            self.done.exception()  # Read once, so that asyncio does not report it as lost.
        if self._transport is not None:
            self._transport.abort()
            await asyncio.shield(self._lost)

    # asyncio calls what follows.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's in all but the class.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._lost.done():
            self._lost.set_result(None)
        if self.done.done():
            return
        if self._body == self._until_close and exc is None:
            self._finish()
        elif self.status:
            self._fail("the connection was closed in the middle of the answer")
        else:
            self._fail("the connection was closed before an answer came")

    def data_received(self, data: bytes) -> None:
        at = self._clock()
        self._heard_at = at
        if self.done.done():
            return
        try:
            if self._body is not None:
                self._body(at, data)
            else:
                self._head(at, data)
        except Exception as error:  # noqa: BLE001 a taker's own mistake must reach its caller
            if not self.done.done():
                self.done.set_exception(error)

    def _head(self, at: float, data: bytes) -> None:
        self._kept += data
        head, found, rest = self._kept.partition(b"\r\n\r\n")
        if not found:
            if len(self._kept) > HEAD_BYTES:
                raise ExchangeError("its answer's head does not end")
            return
        self._kept = b""
        first, *lines = head.decode("latin-1").split("\r\n")
        words = first.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
            raise ExchangeError("what listens there does not speak HTTP/1.1")
        status = int(words[1])
        if 100 <= status < 200:
            self._head(at, rest)
            return
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        self.status = status
        self._taker.head(status, headers)
        self._choose_framing(headers)
        if self._body is not None and rest and not self.done.done():
            self._body(at, rest)

    def _choose_framing(self, headers: Mapping[str, str]) -> None:
        length = headers.get("content-length")
        if self.status in (204, 304):
            self._finish()
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            self._body = self._chunked
        elif length is None:
            self._body = self._until_close
        elif not (length.isascii() and length.isdecimal()):
            raise ExchangeError("its answer has no lawful content length")
        else:
            self._body = self._counted
            self._left = int(length)
            if self._left == 0:
                self._finish()

    def _until_close(self, at: float, data: bytes) -> None:
        self._take(at, data)

    def _counted(self, at: float, data: bytes) -> None:
        data = data[: self._left]
        self._left -= len(data)
        self._take(at, data)
        if self._left == 0:
            self._finish()

    def _chunked(self, at: float, data: bytes) -> None:
        if self._kept:
            data, self._kept = self._kept + data, b""
        position, end = 0, len(data)
        while position < end:
            if self._left:
                part = data[position : position + self._left]
                position += len(part)
                self._left -= len(part)
                self._line_end_left = 0 if self._left else 2
                self._take(at, part)
            elif self._line_end_left:
                skipped = min(self._line_end_left, end - position)
                position += skipped
                self._line_end_left -= skipped
            else:
                line_end = data.find(b"\r\n", position)
                if line_end < 0:
                    self._kept = data[position:]
                    if len(self._kept) > SIZE_LINE_BYTES:
                        raise ExchangeError("a chunk of its answer has no lawful size")
                    return
                self._left = _chunk_size(data[position:line_end])
                position = line_end + 2
                if self._left == 0:
                    # Trailers may follow; nobody reads them, and the connection ends here.
                    self._finish()
                    return

    def _take(self, at: float, data: bytes) -> None:
        self._taken += len(data)
        if self._limit is not None and self._taken > self._limit:
            raise ExchangeError(f"its answer is longer than {self._limit} bytes")
        wanted_s = self._taker.body(at, data)
        if wanted_s is None:
            return
        if wanted_s <= 0:
            self._finish()
        elif self._ending is None:
            self._ending = self._loop.call_later(wanted_s, self._finish)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(ExchangeError(why))


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    try:
        size = int(digits, 16)
    except ValueError:
        size = -1
    if size < 0 or not digits.isalnum():
        raise ExchangeError("a chunk of its answer has no lawful size")
    return size
