"""Takes the bytes of HTTP/1.1 requests apart; reads and writes no socket."""

from dataclasses import dataclass, field

HEADER_LIMIT = 32 * 1024
BODY_LIMIT = 16 * 1024 * 1024


class BadRequest(Exception):
    """These bytes are no request that we serve; the connection cannot go on."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass
class Request:
    method: str
    path: str
    """Without the query."""
    headers: dict[str, str]
    """Names in lower case."""
    keep_alive: bool
    version: str = "HTTP/1.1"
    body: bytes = b""
    length: int | None = field(default=None, repr=False)
    """None: the body comes in chunks."""


class RequestParser:
    """Bytes in, whole requests out, in order."""

    def __init__(self, *, header_limit: int = HEADER_LIMIT, body_limit: int = BODY_LIMIT) -> None:
        self._header_limit, self._body_limit = header_limit, body_limit
        self._buffer = bytearray()
        self._head: Request | None = None
        self._chunks = bytearray()
        self._chunk_left: int | None = None
        self._in_trailers = False
        self.wants_continue = False
        """The client waits for "100 Continue" before it sends its body."""

    @property
    def is_midway(self) -> bool:
        """A request has begun and is not whole yet."""
        return self._head is not None or bool(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> Request | None:
        """The next whole request, or None until more bytes come."""
        if self._head is None:
            self._head = self._read_head()
            if self._head is None:
                return None
            self._chunks, self._chunk_left, self._in_trailers = bytearray(), None, False
        body = self._read_chunks() if self._head.length is None else self._read_exactly()
        if body is None:
            return None
        request, self._head = self._head, None
        request.body = body
        self.wants_continue = False
        return request

    def _read_head(self) -> Request | None:
        while self._buffer.startswith(b"\r\n"):  # an empty line before a request is allowed
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 and len(self._buffer) <= self._header_limit:
            return None
        if end < 0 or end > self._header_limit:
            raise BadRequest(431, f"The headers are longer than {self._header_limit} bytes")
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        request = _head(lines)
        if request.length is not None and request.length > self._body_limit:
            raise BadRequest(413, f"The body is longer than {self._body_limit} bytes")
        if request.headers.get("expect", "").lower() == "100-continue":
            self.wants_continue = request.length != 0
        return request

    def _read_exactly(self) -> bytes | None:
        assert self._head is not None
        assert self._head.length is not None
        if len(self._buffer) < self._head.length:
            return None
        body = bytes(self._buffer[: self._head.length])
        del self._buffer[: self._head.length]
        return body

    def _read_chunks(self) -> bytes | None:
        while not self._in_trailers:
            if self._chunk_left is None:
                line = self._line()
                if line is None:
                    return None
                self._chunk_left = _chunk_size(line)
                if self._chunk_left == 0:
                    self._in_trailers = True
                    break
                if len(self._chunks) + self._chunk_left > self._body_limit:
                    raise BadRequest(413, f"The body is longer than {self._body_limit} bytes")
            if len(self._buffer) < self._chunk_left + 2:
                return None
            if self._buffer[self._chunk_left : self._chunk_left + 2] != b"\r\n":
                raise BadRequest(400, "A chunk of the body does not end where it should")
            self._chunks += self._buffer[: self._chunk_left]
            del self._buffer[: self._chunk_left + 2]
            self._chunk_left = None
        while (line := self._line()) is not None:
            if not line:
                return bytes(self._chunks)
        return None

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > 1024:
                raise BadRequest(400, "A line between the chunks of the body is too long")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line


def _head(lines: list[str]) -> Request:
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[0].isalpha() or not parts[1]:
        raise BadRequest(400, "The first line is no HTTP request line")
    method, target, version = parts
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequest(505 if version.startswith("HTTP/") else 400, "Only HTTP/1.1 is served")
    headers = _headers(lines[1:])
    if version == "HTTP/1.1" and "host" not in headers:
        raise BadRequest(400, "The Host header is missing")
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection and (
        version == "HTTP/1.1" or "keep-alive" in connection
    )
    path = target.split("?", 1)[0]
    return Request(method, path, headers, keep_alive, version, length=_body_length(headers))


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or "\0" in line:
            raise BadRequest(400, "A header line has no name and value")
        key, value = name.lower(), value.strip(" \t")
        if key == "content-length" and headers.get(key, value) != value:
            raise BadRequest(400, "There are two different Content-Length headers")
        headers[key] = value
    return headers


def _body_length(headers: dict[str, str]) -> int | None:
    if "transfer-encoding" in headers:
        if "content-length" in headers:
            raise BadRequest(400, "Content-Length and Transfer-Encoding exclude each other")
        if headers["transfer-encoding"].lower() != "chunked":
            raise BadRequest(501, "The only transfer encoding served is chunked")
        return None
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadRequest(400, "Content-Length is no number")
    return int(text)


def _chunk_size(line: bytes) -> int:
    digits = line.split(b";", 1)[0].strip()
    if not digits or len(digits) > 8 or not all(d in b"0123456789abcdefABCDEF" for d in digits):
        raise BadRequest(400, "A chunk of the body has no size")
    return int(digits, 16)
