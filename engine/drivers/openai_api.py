"""The one HTTP client for engines' OpenAI-compatible APIs: whole answers and token streams."""

import asyncio
import contextlib
import time
from array import array
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from engine.core.errors import EngineUnreachable
from engine.drivers.http1 import Exchange, ExchangeError, Place, parse_url
from engine.drivers.openai_events import Events, Piece, error_message, printable

__all__ = [
    "EngineRefused",
    "EngineUnreachable",
    "Finished",
    "Piece",
    "Response",
    "get",
    "post_json",
    "redacted",
    "refused",
    "stream",
]

LIMIT_BYTES: Final = 8 << 20


class EngineRefused(EngineUnreachable):
    """The engine answered, but with an error; `status` is 200 when it came inside a stream."""

    def __init__(self, *, what: str, why: str, do: str, status: int) -> None:
        super().__init__(what=what, why=why, do=do)
        self.status = status


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON values, or None where it is not JSON."""
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError:
            return None


@dataclass(frozen=True, slots=True)
class Finished:
    """A stream that ended with [DONE]. All times are of the clock that `stream` was given."""

    sent_at: float
    """When the request was handed to the socket; connecting came before."""
    first_at: float | None
    """The first piece with text: a chat's opening event, which has a role only, is none."""
    last_at: float | None
    piece_times: "array[float]"
    tokens: int
    """Counted from the pieces; `completion_tokens` is better where the engine tells."""
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str | None
    cached_tokens: int | None = None
    """Of the prompt, from the engine's prefix cache; few engines tell unless asked to."""

    @property
    def pieces(self) -> int:
        return len(self.piece_times)


async def get(
    url: str,
    *,
    timeout_s: float,
    limit_bytes: int = LIMIT_BYTES,
    headers: Mapping[str, str] | None = None,
    api_key: str | None = None,
) -> Response:
    """Any status is a response; only an engine that does not answer raises."""
    place = _place(url)
    return await _whole(place, "GET", None, timeout_s, limit_bytes, headers, api_key)


async def post_json(
    url: str,
    body: Mapping[str, object],
    *,
    timeout_s: float,
    limit_bytes: int = LIMIT_BYTES,
    headers: Mapping[str, str] | None = None,
    api_key: str | None = None,
) -> Response:
    """Any status is a response; only an engine that does not answer raises."""
    place = _place(url)
    encoded = msgspec.json.encode(body)
    return await _whole(place, "POST", encoded, timeout_s, limit_bytes, headers, api_key)


async def stream(
    url: str,
    body: Mapping[str, object],
    *,
    on_piece: Callable[[Piece], None],
    idle_timeout_s: float,
    api_key: str | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Finished:
    """Posts `body`, which must ask for a stream, and hands over every piece as it arrives.

    `idle_timeout_s` bounds the silence (so also the wait for the first token), not the whole.
    Cancelling closes the socket, which is how engines learn that nobody wants the rest.
    """
    place = _place(url)
    request = _request(place, "POST", msgspec.json.encode(body), None, api_key)
    events = Events(on_piece)
    exchange = Exchange(events, limit_bytes=None, clock=clock)
    try:
        async with _connected(place, exchange, idle_timeout_s):
            sent_at = exchange.send(request)
            exchange.watch_silence(idle_timeout_s)
            await exchange.done
    except ExchangeError as error:
        raise _unreachable(place, redacted(str(error), api_key)) from None
    if exchange.status != 200:
        refusal = Response(exchange.status, bytes(events.plain))
        raise refused(place.shown, refusal, api_key=api_key)
    events.end()
    if events.error is not None:
        raise EngineRefused(
            what=f"{place.shown} ended the stream with an error",
            why=redacted(events.error, api_key),
            do="Read the engine's log for the cause.",
            status=200,
        )
    if not events.finished:
        why = "the answer ended without [DONE]"
        if events.plain:
            why = f"the answer is not a stream of events ({printable(bytes(events.plain))})"
        raise _unreachable(place, redacted(why, api_key))
    times = events.times
    return Finished(
        sent_at=sent_at,
        first_at=times[0] if times else None,
        last_at=times[-1] if times else None,
        piece_times=times,
        tokens=events.tokens,
        prompt_tokens=events.prompt_tokens,
        completion_tokens=events.completion_tokens,
        finish_reason=events.finish_reason,
        cached_tokens=events.cached_tokens,
    )


def refused(shown_url: str, response: Response, *, api_key: str | None = None) -> EngineRefused:
    """The error for a response whose status is not the one that was hoped for."""
    status = response.status
    if 300 <= status < 400:
        why = f"HTTP {status}, a redirect, and redirects are not followed"
        do = "Give the address that the engine itself listens on."
    else:
        message = redacted(error_message(response.body), api_key)
        why = f"HTTP {status}: {message}" if message else f"HTTP {status}"
        do = {
            401: "Give the API key that the engine was started with.",
            403: "Give the API key that the engine was started with.",
            404: "Check the address and the model's name against /v1/models.",
            429: "Wait, or ask for less at once.",
        }.get(status, "Read the engine's log for the cause.")
    return EngineRefused(what=f"{shown_url} answered with an error", why=why, do=do, status=status)


def redacted(text: str, secret: str | None) -> str:
    """Engines like to repeat a wrong key in their answer."""
    return text.replace(secret, "***") if secret else text


def _place(url: str) -> Place:
    try:
        return parse_url(url)
    except ValueError as error:
        raise EngineUnreachable(
            what="The engine's address cannot be used",
            why=str(error),
            do="Write it as http://HOST:PORT.",
        ) from None


def _unreachable(place: Place, why: str) -> EngineUnreachable:
    return EngineUnreachable(
        what=f"No answer from {place.shown}",
        why=why,
        do="Check that the engine runs and listens there; its log says more.",
    )


def _request(
    place: Place,
    method: str,
    body: bytes | None,
    headers: Mapping[str, str] | None,
    api_key: str | None,
) -> bytes:
    lines = {"Host": place.host_header, "Connection": "close", "Accept": "*/*"}
    if body is not None:
        lines["Content-Type"] = "application/json"
        lines["Content-Length"] = str(len(body))
    if api_key is not None:
        lines["Authorization"] = f"Bearer {api_key}"
    lines.update(headers or {})
    for name, value in lines.items():
        if not (name + value).isascii() or not (name + value).isprintable():
            raise EngineUnreachable(
                what="The request cannot be sent",
                why=f"the value of the header {name!r} has a character that headers cannot carry",
                do="Check the API key for line ends and accents.",
            )
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {place.target} HTTP/1.1\r\n{head}\r\n".encode("ascii") + (body or b"")


@contextlib.asynccontextmanager
async def _connected(place: Place, exchange: Exchange, timeout_s: float) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            await loop.create_connection(lambda: exchange, place.host, place.port)
    except TimeoutError:
        raise ExchangeError(f"no connection within {timeout_s:g} s") from None
    except OSError as error:
        raise ExchangeError(_os_reason(error)) from None
    try:
        yield
    finally:
        await exchange.close()


def _os_reason(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
        return "connection refused, so nothing listens there"
    return printable(error.strerror or str(error) or type(error).__name__)


@dataclass
class _Collected:
    """The body of an answer that is read whole."""

    plain: bytearray = field(default_factory=bytearray)

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Nothing in the head changes how a whole body is read."""

    def body(self, at: float, data: bytes) -> float | None:
        self.plain += data
        return None


async def _whole(
    place: Place,
    method: str,
    body: bytes | None,
    timeout_s: float,
    limit_bytes: int,
    headers: Mapping[str, str] | None,
    api_key: str | None,
) -> Response:
    request = _request(place, method, body, headers, api_key)
    collected = _Collected()
    exchange = Exchange(collected, limit_bytes=limit_bytes, clock=time.perf_counter)
    try:
        async with asyncio.timeout(timeout_s), _connected(place, exchange, timeout_s):
            exchange.send(request)
            await exchange.done
    except TimeoutError:
        raise _unreachable(place, f"no whole answer within {timeout_s:g} s") from None
    except ExchangeError as error:
        raise _unreachable(place, redacted(str(error), api_key)) from None
    return Response(exchange.status, bytes(collected.plain))
