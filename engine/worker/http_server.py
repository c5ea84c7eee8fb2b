"""A small HTTP/1.1 server on asyncio: keep-alive, streamed answers, and clients that leave."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

from engine.worker.http_parser import BadRequest, Request, RequestParser

IDLE_S = 75.0
"""How long a connection may stay silent between requests, or half-way through one."""

_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


class Reply(Protocol):
    """Where a handler puts its answer: one `send`, or one `start_stream` and then `write`s."""

    def send(
        self, status: int, body: bytes, *, kind: str = ..., headers: dict[str, str] | None = ...
    ) -> None: ...
    def start_stream(self, *, kind: str) -> None: ...
    async def write(self, data: bytes) -> None: ...


Handler = Callable[[Request, Reply], Awaitable[None]]
"""Is cancelled when the client goes away."""


class Connection(asyncio.Protocol):
    """One client; its requests are answered one after the other."""

    def __init__(self, handler: Handler, connections: set["Connection"]) -> None:
        self._handler = handler
        self._connections = connections
        self._parser = RequestParser()
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._request: Request | None = None
        self._answered = self._streaming = False

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock = self._transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections.add(self)
        self._wait_for_client()

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        if self._task is None:
            self._proceed()
        elif len(data) > 0 and self._transport is not None:
            # More comes while we answer: enough for one pipelined request, then wait.
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        return False  # a client that stops sending has left; connection_lost follows

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._transport = None
        self._writable.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # What a handler calls

    def send(
        self,
        status: int,
        body: bytes,
        *,
        kind: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:
        lines = {"content-type": kind, "content-length": str(len(body)), **(headers or {})}
        head_only = self._request is not None and self._request.method == "HEAD"
        self._put(self._head(status, lines) + (b"" if head_only else body))
        self._answered = True

    def start_stream(self, *, kind: str) -> None:
        lines = {"content-type": kind, "cache-control": "no-cache"}
        if self._is_http10():
            assert self._request is not None
            self._request.keep_alive = False  # the end of the answer is the end of the line
        else:
            lines["transfer-encoding"] = "chunked"
        self._put(self._head(200, lines))
        self._answered = self._streaming = True

    async def write(self, data: bytes) -> None:
        self._put(data if self._is_http10() else b"%x\r\n%b\r\n" % (len(data), data))
        if not self._writable.is_set():
            await self._writable.wait()

    # Our own

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _proceed(self) -> None:
        try:
            request = self._parser.next()
        except BadRequest as error:
            self._refuse(error)
            return
        if request is None:
            if self._parser.wants_continue:
                self._parser.wants_continue = False
                self._put(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._wait_for_client()
            return
        if self._timer is not None:
            self._timer.cancel()
        self._request, self._answered, self._streaming = request, False, False
        self._task = asyncio.get_running_loop().create_task(self._answer(request))

    async def _answer(self, request: Request) -> None:
        try:
            await self._handler(request, self)
            if self._streaming and not self._is_http10():
                self._put(b"0\r\n\r\n")
        except asyncio.CancelledError:
            request.keep_alive = False
        except Exception as error:  # noqa: BLE001 -- one bad answer must not end the server
            request.keep_alive = False
            if not self._answered:
                self.send(500, _error_body(f"The server failed: {error!r}", "server_error"))
            asyncio.get_running_loop().call_exception_handler(
                {
                    "message": f"answering {request.method} {request.path} failed",
                    "exception": error,
                }
            )
        finally:
            self._task = None
        if self._transport is None:
            return
        if not request.keep_alive:
            self._transport.close()
            return
        with contextlib.suppress(RuntimeError):
            self._transport.resume_reading()
        self._proceed()

    def _refuse(self, error: BadRequest) -> None:
        self._request = None
        body = _error_body(error.message, "invalid_request_error")
        self.send(error.status, body, headers={"connection": "close"})
        self.close()

    def _wait_for_client(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(IDLE_S, self.close)

    def _head(self, status: int, headers: dict[str, str]) -> bytes:
        if self._request is not None:
            headers.setdefault("connection", "keep-alive" if self._request.keep_alive else "close")
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _is_http10(self) -> bool:
        return self._request is not None and self._request.version == "HTTP/1.0"

    def _put(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _error_body(message: str, kind: str) -> bytes:
    error = {"message": message, "type": kind, "param": None, "code": None}
    return json.dumps({"error": error}).encode()
