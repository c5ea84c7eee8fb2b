import pytest

from engine.worker.http_parser import BadRequest, Request, RequestParser

GET = b"GET /health?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /v1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2;note=x\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: x\r\n\r\n"
)


def parsed(data: bytes, size: int | None = None) -> list[Request]:
    parser = RequestParser()
    found = []
    for at in range(0, len(data), size or len(data)):
        parser.feed(data[at : at + (size or len(data))])
        while (request := parser.next()) is not None:
            found.append(request)
    assert not parser.is_midway
    return found


@pytest.mark.parametrize("size", [None, 1, 7])
def test_requests_come_out_whole_however_they_are_cut(size: int | None) -> None:
    requests = parsed(GET + POST + b"\r\n" + CHUNKED, size)
    assert [(one.method, one.path, one.body) for one in requests] == [
        ("GET", "/health", b""),
        ("POST", "/v1", b"hello"),
        ("POST", "/v1", b"hello"),
    ]
    assert all(one.keep_alive for one in requests)


def test_who_wants_to_close_is_heard() -> None:
    (request,) = parsed(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert not request.keep_alive
    (request,) = parsed(b"GET / HTTP/1.0\r\n\r\n")
    assert not request.keep_alive


def test_expect_is_noticed_before_the_body_comes() -> None:
    parser = RequestParser()
    parser.feed(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert parser.next() is None
    assert parser.wants_continue


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked"
            b"\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc", 400),
        (b"GET / HTTP/1.1\r\nHost: " + b"a" * 40_000, 431),
    ],
)
def test_what_is_no_request_is_refused(data: bytes, status: int) -> None:
    parser = RequestParser()
    parser.feed(data)
    with pytest.raises(BadRequest) as refusal:
        parser.next()
    assert refusal.value.status == status
