"""Server-sent events of the OpenAI API, from bytes that are cut anywhere to pieces of text."""

from array import array
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

ERROR_BODY_BYTES: Final = 64 << 10
LINE_BYTES: Final = 1 << 20
AFTER_DONE_S: Final = 1.0
"""How long the server may take to end the body once it has sent [DONE]."""


class Piece(NamedTuple):
    """One event of a stream that carries text. A tuple, because one is made for every token."""

    at: float
    """When its last bytes were handed over by the socket, before anything was parsed."""
    text: str
    tokens: int
    """1, unless the event's own running usage says that it carries more."""


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct, gc=False):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens: int | None = None


class _Event(msgspec.Struct, gc=False):
    """Typed, so that the fields of a 230-byte event that nobody reads cost nothing."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None
    object: str | None = None
    message: str | None = None


_decode_event = msgspec.json.Decoder(_Event).decode


class Events:
    """Server-sent events of one stream, from bytes cut anywhere to pieces."""

    def __init__(self, on_piece: Callable[[Piece], None]) -> None:
        self._on_piece = on_piece
        self._rest = b""
        self._data: list[bytes] = []
        self._is_stream = False
        self._at = 0.0
        self.plain = bytearray()
        self.times = array("d")
        self.tokens = 0
        self.prompt_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.finish_reason: str | None = None
        self.error: str | None = None
        self.finished = False

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self._is_stream = status == 200 and "json" not in headers.get("content-type", "")

    def body(self, at: float, data: bytes) -> float | None:
        if not self._is_stream:
            self.plain += data[: ERROR_BODY_BYTES - len(self.plain)]
            return None
        # Nearly every read is exactly one whole event.
        if (
            not self._rest
            and not self._data
            and data.endswith(b"\n\n")
            and data.startswith(b"data: ")
            and data.count(b"\n") == 2
        ):
            self._event(at, data[6:-2])
            return self._wanted_s()
        self._at = at
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LINE_BYTES:
            self.error = f"a line of more than {LINE_BYTES} bytes"
        for line in lines:
            self._line(at, line.removesuffix(b"\r"))
        return self._wanted_s()

    def _wanted_s(self) -> float | None:
        if self.error is not None:
            return 0.0
        return AFTER_DONE_S if self.finished else None

    def end(self) -> None:
        """Takes what stands after the last line end; some servers forget the last empty line."""
        self._line(self._at, self._rest.removesuffix(b"\r"))
        self._line(self._at, b"")
        self._rest = b""

    def _line(self, at: float, line: bytes) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line.startswith(b"error:"):
            # llama.cpp's server has a field of its own for errors.
            self.error = error_message(line[6:]) or "an error event that says nothing"
        elif not line and self._data:
            data = b"\n".join(self._data)
            self._data.clear()
            self._event(at, data)

    def _event(self, at: float, data: bytes) -> None:
        if self.finished or self.error is not None:
            return
        if data.strip() == b"[DONE]":
            self.finished = True
            return
        try:
            event = _decode_event(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.error = f"an event that is not understood ({printable(str(error))})"
            return
        if event.error or event.object == "error":
            self.error = error_message(data) or "an error event that says nothing"
            return
        text = ""
        if event.choices:
            choice = event.choices[0]
            delta = choice.delta
            text = choice.text or ""
            if delta is not None:
                text = delta.content or delta.reasoning_content or delta.reasoning or ""
            self.finish_reason = choice.finish_reason or self.finish_reason
        tokens = 1
        usage = event.usage
        if usage is not None:
            if usage.prompt_tokens is not None:
                self.prompt_tokens = usage.prompt_tokens
            if usage.prompt_tokens_details is not None:
                self.cached_tokens = usage.prompt_tokens_details.cached_tokens
            if usage.completion_tokens is not None:
                self.completion_tokens = usage.completion_tokens
                tokens = max(1, usage.completion_tokens - self.tokens)
        if text:
            self.times.append(at)
            self.tokens += tokens
            self._on_piece(Piece(at, text, tokens))


def error_message(body: bytes) -> str:
    """What the engine says, from any of the shapes that engines wrap an error in."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return printable(body)
    for key in ("error", "detail", "message"):
        if isinstance(value, dict) and value.get(key):
            value = value[key]
    return printable(value if isinstance(value, str) else msgspec.json.encode(value))


def printable(text: str | bytes, limit: int = 300) -> str:
    """One clipped line without control characters: it may end up on a terminal."""
    if isinstance(text, bytes):
        text = text[: 4 * limit].decode("utf-8", "replace")
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
