import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import EngineUnreachable
from engine.drivers import openai_api
from engine.drivers.http1 import Exchange
from engine.drivers.openai_api import EngineRefused, Finished, Piece
from engine.drivers.openai_events import Events
from tests.bench.fakes import starting_fakes

USAGE = {"include_usage": True}
KEY = "sk-very-secret"

Fake = Callable[..., str]


@pytest.fixture
def fake() -> Iterator[Fake]:
    """Starts a fake engine with these flags and gives its base URL."""
    with starting_fakes() as start:
        yield lambda *flags: start(*flags).url


async def generate(
    base: str, *, tokens: int = 10, prompt: str = "a b c", **more: object
) -> tuple[Finished, list[Piece]]:
    pieces: list[Piece] = []
    body = {"prompt": prompt, "max_tokens": tokens, "stream": True, "stream_options": USAGE}
    finished = await openai_api.stream(
        f"{base}/v1/completions", body | more, on_piece=pieces.append, idle_timeout_s=5
    )
    return finished, pieces


async def log(base: str) -> list[dict[str, Any]]:
    response = await openai_api.get(f"{base}/log", timeout_s=5)
    requests: list[dict[str, Any]] = response.json()["requests"]
    return requests


def open_files() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


def expected(tokens: int) -> str:
    return "".join(f" {'é€漢😀'[number % 4]}{number}" for number in range(tokens))


async def test_every_framing_of_a_whole_answer_is_read(fake: Fake) -> None:
    base = fake("--split-bytes", "3")
    models = await openai_api.get(f"{base}/v1/models", timeout_s=5)
    assert models.status == 200
    assert models.json()["data"][0]["id"] == "fake"
    assert (await openai_api.get(f"{base}/until-close", timeout_s=5)).body == b"first and last"
    assert (await openai_api.get(f"{base}/chunks", timeout_s=5)).body == b"hello, wide wor\nld"
    posted = await openai_api.post_json(
        f"{base}/v1/completions", {"prompt": "a", "stream": False}, timeout_s=5
    )
    assert posted.json() == {"choices": [{"text": "whole"}]}


async def test_an_error_status_of_a_whole_answer_is_an_answer(fake: Fake) -> None:
    base = fake()
    assert (await openai_api.get(f"{base}/nowhere", timeout_s=5)).status == 404
    moved = await openai_api.get(f"{base}/moved", timeout_s=5)
    assert moved.status == 302, "redirects are not followed"
    assert "redirect" in openai_api.refused("http://x/moved", moved).why


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/slow", "no whole answer within 0.3 s"),
        ("/cut", "closed in the middle"),
        ("/chunks", "longer than 4 bytes"),
    ],
)
async def test_a_broken_whole_answer_says_why(fake: Fake, path: str, why: str) -> None:
    base = fake()
    with pytest.raises(EngineUnreachable, match=why):
        await openai_api.get(
            base + path, timeout_s=0.3, limit_bytes=4 if path == "/chunks" else 1000
        )


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://127.0.0.1:1/v1", "not plain http but https"),
        ("127.0.0.1:8000", "not plain http"),
        ("http:///v1", "names no host"),
        ("http://user:secret@127.0.0.1:1/", "user name"),
        ("http://127.0.0.1:99999/", "not a URL"),
        ("http://127.0.0.1:1/", "connection refused"),
        ("http://[::1]:1/", "."),
    ],
)
async def test_an_address_that_cannot_answer_says_why(url: str, why: str) -> None:
    with pytest.raises(EngineUnreachable, match=why) as caught:
        await openai_api.get(url, timeout_s=2)
    assert "secret" not in str(caught.value)
    assert caught.value.do


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--mode", "close"),
        ("--crlf",),
        ("--glue", "3"),
        ("--split-bytes", "1"),
        ("--split-bytes", "7", "--crlf"),
        ("--split-bytes", "60", "--mode", "close", "--glue", "4"),
    ],
    ids=" ".join,
)
async def test_pieces_are_exact_however_the_bytes_are_cut(
    fake: Fake, flags: tuple[str, ...]
) -> None:
    base = fake("--itl-ms", "0.5", *flags)
    finished, pieces = await generate(base, tokens=11)
    assert "".join(piece.text for piece in pieces) == expected(11)
    assert finished.pieces == finished.tokens == finished.completion_tokens == 11
    assert finished.prompt_tokens == 4
    assert finished.finish_reason == "length"
    assert [piece.at for piece in pieces] == list(finished.piece_times)
    assert finished.sent_at < pieces[0].at == finished.first_at
    assert finished.last_at == pieces[-1].at


async def test_chat_starts_at_the_first_text_and_not_at_the_role(fake: Fake) -> None:
    base = fake("--ttft-ms", "40")
    pieces: list[Piece] = []
    finished = await openai_api.stream(
        f"{base}/v1/chat/completions",
        {"messages": [{"role": "user", "content": "a b"}], "stream": True, "max_tokens": 4},
        on_piece=pieces.append,
        idle_timeout_s=5,
    )
    assert "".join(piece.text for piece in pieces) == expected(4)
    assert finished.first_at is not None
    assert finished.first_at - finished.sent_at >= 0.039
    assert finished.completion_tokens is None, "the usage was not asked for"


async def test_running_usage_tells_how_many_tokens_a_piece_has(fake: Fake) -> None:
    base = fake("--tokens-per-event", "3")
    _, guessed = await generate(base, tokens=5)
    told, pieces = await generate(
        base, tokens=5, stream_options=USAGE | {"continuous_usage_stats": True}
    )
    assert [piece.tokens for piece in guessed] == [1] * 5
    assert [piece.tokens for piece in pieces] == [3] * 5
    assert told.tokens == told.completion_tokens == 15


async def test_stamps_follow_the_servers_own_clock(fake: Fake) -> None:
    base = fake("--ttft-ms", "30", "--itl-ms", "8")
    assert time.get_clock_info("perf_counter").implementation == "clock_gettime(CLOCK_MONOTONIC)"
    finished, pieces = await generate(base, tokens=40)
    (seen,) = await log(base)
    lags = [p.at - sent for p, sent in zip(pieces, seen["sent"], strict=True)]
    assert all(lag > 0 for lag in lags)
    assert statistics.median(lags) < 0.004, "half of an inter-token time, on a busy machine"
    assert finished.sent_at < seen["received_at"]
    gaps = [b - a for a, b in zip(finished.piece_times, finished.piece_times[1:], strict=False)]
    assert statistics.median(gaps) == pytest.approx(0.008, rel=0.5)


async def test_glued_events_share_their_stamp(fake: Fake) -> None:
    base = fake("--glue", "4")
    _, pieces = await generate(base, tokens=12)
    assert len({piece.at for piece in pieces}) == 3


async def test_sixteen_streams_at_once_do_not_mix(fake: Fake) -> None:
    base = fake("--itl-ms", "2", "--split-bytes", "90")
    answers = await asyncio.gather(
        *(generate(base, tokens=5 + number, prompt=f"p{number}") for number in range(16))
    )
    for number, (finished, pieces) in enumerate(answers):
        assert finished.completion_tokens == 5 + number
        assert "".join(piece.text for piece in pieces) == expected(5 + number)


@pytest.mark.parametrize(
    ("flags", "why", "pieces_before"),
    [
        (("--error-event", "3"), "out of blocks", 3),
        (("--no-done",), r"without \[DONE\]", 10),
        (("--drop-after-tokens", "2"), "closed in the middle", 2),
        (("--drop-after-tokens", "2", "--mode", "close"), r"without \[DONE\]", 2),
        (("--die-after-tokens", "4"), "closed in the middle", None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_a_stream_that_does_not_end_well_is_an_error(
    fake: Fake, flags: tuple[str, ...], why: str, pieces_before: int | None
) -> None:
    base = fake(*flags)
    pieces: list[Piece] = []
    with pytest.raises(EngineUnreachable, match=why):
        await openai_api.stream(
            f"{base}/v1/completions",
            {"prompt": "a", "stream": True, "max_tokens": 10},
            on_piece=pieces.append,
            idle_timeout_s=5,
        )
    if pieces_before is not None:
        assert len(pieces) == pieces_before


async def test_a_refusal_keeps_its_status_and_not_the_key(fake: Fake) -> None:
    base = fake("--status", "401")
    with pytest.raises(EngineRefused) as caught:
        await openai_api.stream(
            f"{base}/v1/completions",
            {"prompt": "a", "stream": True},
            on_piece=lambda piece: None,
            idle_timeout_s=5,
            api_key=KEY,
        )
    assert caught.value.status == 401
    assert "is not welcome" in caught.value.why
    assert KEY not in str(caught.value)
    assert "\x1b" not in str(caught.value), "an engine's words do not steer the terminal"
    (seen,) = await log(base)
    assert seen["authorization"] == f"Bearer {KEY}"


async def test_a_key_with_a_line_end_never_reaches_the_wire(fake: Fake) -> None:
    base = fake()
    with pytest.raises(EngineUnreachable, match="Authorization") as caught:
        await openai_api.get(f"{base}/log", timeout_s=5, api_key=f"{KEY}\r\nX: 1")
    assert KEY not in str(caught.value)


async def test_an_engine_that_does_not_stream_is_told_apart(fake: Fake) -> None:
    base = fake()
    with pytest.raises(EngineUnreachable, match="not a stream of events"):
        await generate(base, stream=False)


async def test_silence_ends_the_stream(fake: Fake) -> None:
    base = fake("--ttft-ms", "5000")
    with pytest.raises(EngineUnreachable, match=r"silent for 0\.1 s"):
        await openai_api.stream(
            f"{base}/v1/completions",
            {"prompt": "a", "stream": True},
            on_piece=lambda piece: None,
            idle_timeout_s=0.1,
        )


async def test_slow_tokens_are_not_silence(fake: Fake) -> None:
    base = fake("--itl-ms", "60")
    finished = await openai_api.stream(
        f"{base}/v1/completions",
        {"prompt": "a", "stream": True, "max_tokens": 8},
        on_piece=lambda piece: None,
        idle_timeout_s=0.3,
    )
    assert finished.pieces == 8


def chunked(body: bytes, sizes: list[int]) -> bytes:
    """As a server might frame it: chunks need not end where events do."""
    framed = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for size in [*sizes, len(body) + 1]:
        part, body = body[:size], body[size:]
        if part:
            framed += b"%X\r\n%b\r\n" % (len(part), part)
    return framed + b"0\r\n\r\n"


def event(text: str) -> bytes:
    return msgspec.json.encode({"choices": [{"text": text}]})


@settings(deadline=None, max_examples=150)
@given(
    texts=st.lists(st.text(max_size=6), max_size=5),
    line_end=st.sampled_from([b"\n", b"\r\n"]),
    noise=st.sampled_from([b"", b": ping", b"event: completion", b"id: 7"]),
    chunks=st.lists(st.integers(1, 80), max_size=8),
    cuts=st.lists(st.integers(1, 60), max_size=30),
)
def test_no_cut_of_the_bytes_changes_the_pieces(
    texts: list[str], line_end: bytes, noise: bytes, chunks: list[int], cuts: list[int]
) -> None:
    lines = [line for text in texts for line in (noise, b"data: " + event(text), b"")]
    answer = chunked(line_end.join([*lines, b"data: [DONE]", b"", b""]), chunks)

    async def feed() -> list[str]:
        pieces: list[Piece] = []
        events = Events(pieces.append)
        exchange = Exchange(events, limit_bytes=None, clock=time.perf_counter)
        left = answer
        for size in [*cuts, len(left)]:
            exchange.data_received(left[:size])
            left = left[size:]
        await asyncio.wait_for(exchange.done, 1)
        events.end()
        assert events.finished
        assert events.error is None
        return [piece.text for piece in pieces]

    assert asyncio.run(feed()) == [text for text in texts if text]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b'data: {"error": {"message": "too long", "code": 400}}\n\n', "too long"),
        (b'data: {"object": "error", "message": "too long"}\n\n', "too long"),
        (b'error: {"message": "too long"}\n\n', "too long"),
        (b'data: {"error": "too long"}\n\n', "too long"),
        (b"data: {nonsense}\n\n", "an event that is not understood"),
    ],
)
def test_every_shape_of_an_error_event_is_read(said: bytes, error: str) -> None:
    events = Events(lambda piece: None)
    events.head(200, {"content-type": "text/event-stream"})
    assert events.body(1.0, said) == 0.0, "nothing more is wanted"
    assert events.error is not None
    assert events.error.startswith(error)


async def test_a_mistake_of_the_listener_is_not_blamed_on_the_engine(fake: Fake) -> None:
    def listen(piece: Piece) -> None:
        raise KeyError(piece.text)

    with pytest.raises(KeyError):
        await openai_api.stream(
            f"{fake()}/v1/completions",
            {"prompt": "a", "stream": True},
            on_piece=listen,
            idle_timeout_s=5,
        )


async def test_cancelling_closes_the_socket_and_the_engine_sees_it(fake: Fake) -> None:
    base = fake("--itl-ms", "20")
    started = asyncio.Event()
    before = open_files()
    work = asyncio.create_task(
        openai_api.stream(
            f"{base}/v1/completions",
            {"prompt": "a", "stream": True, "max_tokens": 1000},
            on_piece=lambda piece: started.set(),
            idle_timeout_s=5,
        )
    )
    await started.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert open_files() == before
    for _ in range(100):
        (seen,) = await log(base)
        if seen["aborted"]:
            break
        await asyncio.sleep(0.02)
    assert seen["aborted"]
    assert len(seen["sent"]) < 100
