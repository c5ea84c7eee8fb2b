"""The worker as a program: listens first, loads the model on the engine's thread, then serves."""

import asyncio
import os
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress

from engine.worker.errors import CannotServe
from engine.worker.http_server import Connection
from engine.worker.loaded import Loaded
from engine.worker.metrics import Metrics
from engine.worker.options import Offline, Options, check_model_files, parse
from engine.worker.sequence import Event, Listener
from engine.worker.service import Service

_AFTER_GRACE_S = 1.0
"""How long the last error events may take to leave the machine."""


def main(argv: list[str], *, api_key: str | None) -> int:
    options = parse(argv, api_key=api_key)
    try:
        check_model_files(options.model, dummy=options.load_format == "dummy")
        if options.offline is not None:
            return _measured(options, options.offline)
        sock = _listen(options)
    except CannotServe as error:
        _say(str(error))
        return error.exit_code
    return asyncio.run(Program(options).run(sock))


def _measured(options: Options, asked: Offline) -> int:
    from engine.worker import offline  # imports torch, which takes seconds

    signal.signal(signal.SIGTERM, lambda number, _: _leave(128 + number))
    signal.signal(signal.SIGINT, lambda number, _: _leave(128 + number))
    offline.measure(options, asked, say=_say)
    return 0


def _listen(options: Options) -> socket.socket:
    """Taken before the model is loaded: a busy port must be told now, not in a minute."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(512)
    except OSError as error:
        raise CannotServe(
            what=f"Cannot listen on {options.host} port {options.port}",
            why=error.strerror or str(error),
            do="Stop the program that uses it, or choose another --host or --port",
            exit_code=1,
        ) from None
    sock.setblocking(False)  # noqa: FBT003 -- the only way to say it
    return sock


class Program:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._metrics = Metrics()
        wall_clock = time.time  # noqa: TID251 -- OpenAI's `created` is a date
        self._service = Service(
            options, self._metrics, clock=time.monotonic, wall_clock=wall_clock
        )
        self._connections: set[Connection] = set()
        self._stop: asyncio.Future[int]
        self._stopping: asyncio.Task[None] | None = None

    async def run(self, sock: socket.socket) -> int:
        loop = asyncio.get_running_loop()
        self._stop = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        server = await loop.create_server(
            lambda: Connection(self._service.answer, self._connections), sock=sock
        )
        port = sock.getsockname()[1]
        _say(f"listening on http://{self._options.host}:{port}, loading {self._options.model}")
        threading.Thread(target=self._engine, args=(loop,), name="engine", daemon=True).start()
        code = await self._stop
        server.close()
        await self._hang_up()
        _leave(code)
        return code

    # The server's thread

    async def _hang_up(self) -> None:
        """Closes every connection; what is written already goes out first."""
        for connection in list(self._connections):
            connection.close()
        deadline = time.monotonic() + _AFTER_GRACE_S
        while self._connections and time.monotonic() < deadline:  # noqa: ASYNC110 -- at the end
            await asyncio.sleep(0.005)

    def _on_signal(self, number: signal.Signals) -> None:
        if (
            self._service.why_unhealthy is not None
            and self._service.why_unhealthy[0] == "stopping"
        ):
            _leave(128 + number)
        _say(f"{number.name}: stopping, {len(self._service.in_flight)} requests in flight")
        self._service.why_unhealthy = ("stopping", "The server is stopping.")
        self._stopping = asyncio.get_running_loop().create_task(self._stop_gently())

    async def _stop_gently(self) -> None:
        try:
            await asyncio.wait_for(self._service.idle.wait(), self._options.grace_s)
        except asyncio.TimeoutError:  # noqa: UP041 -- Python 3.10 knows it by this name only
            self._service.fail_all("The server stopped before the answer was complete.")
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._service.idle.wait(), _AFTER_GRACE_S)
        self._finish(0)

    def _finish(self, code: int) -> None:
        if not self._stop.done():
            self._stop.set_result(code)

    def _on_loaded(self, loaded: Loaded, seconds: float) -> None:
        self._service.loaded = loaded
        if self._service.why_unhealthy is not None and self._service.why_unhealthy[0] == "loading":
            self._service.why_unhealthy = None
        _say(
            f"ready after {seconds:.1f} s: {loaded.dtype}, weights {loaded.weights_bytes} bytes, "
            f"context {loaded.max_length} tokens, room for {loaded.kv_tokens} tokens, "
            f"{self._options.threads} threads"
        )

    def _on_dead(self, why: str) -> None:
        self._service.why_unhealthy = ("dead", why)

    # The engine's thread

    def _engine(self, loop: asyncio.AbstractEventLoop) -> None:
        from engine.worker import engine  # imports torch, which takes seconds

        def deliver(news: list[tuple[Listener, Event]]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(_tell, news)

        began = time.monotonic()
        try:
            loaded, run = engine.start(
                self._options, self._metrics, deliver=deliver, clock=time.monotonic
            )
        except CannotServe as error:
            _say(str(error))
            loop.call_soon_threadsafe(self._finish, error.exit_code)
            return
        except BaseException as error:  # noqa: BLE001 -- told to whoever asks for /health
            _say(_unexpected(error))
            loop.call_soon_threadsafe(self._finish, 1)
            return
        loop.call_soon_threadsafe(self._on_loaded, loaded, time.monotonic() - began)
        try:
            run()
        except BaseException as error:  # noqa: BLE001 -- told to whoever asks for /health
            _say(_unexpected(error))
            loop.call_soon_threadsafe(self._on_dead, f"The engine failed: {error!r}")


def _tell(news: list[tuple[Listener, Event]]) -> None:
    for listener, made in news:
        listener(made)


def _unexpected(error: BaseException) -> str:
    return "The engine failed: " + "".join(traceback.format_exception(error)).strip()


def _say(line: str) -> None:
    with suppress(
        OSError
    ):  # whoever read our log may be gone; that must not keep us from stopping
        print(line, file=sys.stderr, flush=True)  # noqa: T201


def _leave(code: int) -> None:
    """At once: torch's own threads may be in the middle of a product."""
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
