"""A fake engine: streams tokens on a known schedule, with bad manners on demand, and logs it.

    python tests/fake_openai.py --port 0 --ttft-ms 20 --itl-ms 5 --tokens 20

prints its port on the first line. `GET /log` returns every request that it saw, with the
CLOCK_MONOTONIC time of every event that it handed to the socket.
"""

import argparse
import asyncio
import json
import os
import random
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.worker.http_parser import Request, RequestParser

ACCENTS = ("é", "€", "漢", "😀")


@dataclass
class Seen:
    """One generating request, as the server saw it."""

    prompt: str
    received_at: float
    body: dict[str, Any]
    authorization: str | None
    sent: list[float] = field(default_factory=list)
    aborted: bool = False


class Server:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.seen: list[Seen] = []
        self.tokens_sent = 0

    def prompt_tokens(self, prompt: str) -> int:
        per_word: float = self.options.tokens_per_word
        return 1 + round(len(prompt.split()) * per_word)


class Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self.server = server
        self.options = server.options
        self.requests = RequestParser()
        self.task: asyncio.Task[None] | None = None
        self.current: Seen | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self.task is not None and not self.task.done():
            if self.current is not None:
                self.current.aborted = True
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        at = time.monotonic()
        self.requests.feed(data)
        request = self.requests.next()
        if request is None:
            return
        self.keep_alive = request.keep_alive
        self.task = asyncio.get_running_loop().create_task(self.answer(request, at))

    async def answer(self, asked: Request, at: float) -> None:
        path = asked.path
        if path == "/log":
            self.plain(200, {"requests": [asdict(seen) for seen in self.server.seen]})
        elif path == "/v1/models":
            self.plain(200, {"object": "list", "data": [{"id": "fake", "object": "model"}]})
        elif path == "/moved":
            self.plain(302, {}, "Location: /v1/models\r\n")
        elif path == "/slow":
            await asyncio.sleep(30)
        elif path == "/until-close":
            self.transport.write(b"HTTP/1.1 200 OK\r\n\r\nfirst and ")
            await asyncio.sleep(0.01)
            self.transport.write(b"last")
            self.transport.close()
        elif path == "/cut":
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
            self.transport.close()
        elif path == "/chunks":
            await self.chunks()
        elif asked.method == "POST" and path.endswith("completions"):
            request = json.loads(asked.body)
            chat = "messages" in request
            prompt = request["messages"][-1]["content"] if chat else request["prompt"]
            if isinstance(prompt, list):
                prompt = "".join(part["text"] for part in prompt)
            seen = Seen(prompt, at, request, asked.headers.get("authorization"))
            self.server.seen.append(seen)
            if self.options.status != 200:
                said = f"no, {seen.authorization} is not welcome\x1b[31m"
                self.plain(self.options.status, {"error": {"message": said, "code": 1}})
            elif not request.get("stream"):
                self.plain(200, {"choices": [{"text": "whole"}]})
            else:
                self.current = seen
                await self.generate(request, seen, chat=chat)
                self.current = None
        else:
            self.plain(404, {"detail": "Not Found"})

    def plain(self, status: int, value: object, more: str = "") -> None:
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{more}"
        self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        if not self.keep_alive:
            self.transport.close()

    async def chunks(self) -> None:
        """Chunk extensions, trailers and cuts in the middle of everything."""
        answer = (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5;note=1\r\nhello\r\nB\r\n, wide wor\n\r\n2\r\nld\r\n0\r\nTrailer: x\r\n\r\n"
        )
        size = self.options.split_bytes or len(answer)
        for start in range(0, len(answer), size):
            self.transport.write(answer[start : start + size])
            await asyncio.sleep(0.0002)
        self.transport.close()

    async def generate(self, request: dict[str, Any], seen: Seen, *, chat: bool) -> None:
        options = self.options
        tokens = options.tokens or request.get("max_tokens", 16)
        prompt_tokens = self.server.prompt_tokens(seen.prompt)
        asked = request.get("stream_options") or {}
        framing = "" if options.mode == "close" else "Transfer-Encoding: chunked\r\n"
        self.transport.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n".encode()
        )
        if chat:
            await self.send(self.event(seen, {"role": "assistant", "content": ""}, chat, None))
        glued: list[bytes] = []
        for number in range(tokens):
            due = seen.received_at + (options.ttft_ms + number * options.itl_ms) / 1e3
            if (number + 1) % options.glue == 0 or number + 1 == tokens:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            text = f" {ACCENTS[number % 4]}{number}"
            usage = None
            if asked.get("continuous_usage_stats"):
                usage = {
                    "prompt_tokens": prompt_tokens,
                    "completion_tokens": (number + 1) * options.tokens_per_event,
                }
            finish = "length" if number + 1 == tokens else None
            glued.append(self.event(seen, text, chat, usage, finish))
            if len(glued) == options.glue or number + 1 == tokens:
                seen.sent += [time.monotonic()] * len(glued)
                await self.send(b"".join(glued))
                glued.clear()
            self.server.tokens_sent += 1
            if options.die_after_tokens and self.server.tokens_sent >= options.die_after_tokens:
                os._exit(1)
            if options.drop_after_tokens == number + 1:
                self.transport.close()
                return
            if options.error_event == number + 1:
                await self.send(b'data: {"error": {"message": "out of blocks"}}\n\n')
                return
        if asked.get("include_usage") and not options.no_usage:
            total: dict[str, object] = {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": tokens * options.tokens_per_event,
            }
            if options.cached_share:
                cached = round(prompt_tokens * options.cached_share)
                total["prompt_tokens_details"] = {"cached_tokens": cached}
            shape = {"choices": [], "usage": total}
            await self.send(f"data: {json.dumps(shape)}\n\n".encode())
        if not options.no_done:
            await self.send(b"data: [DONE]\n\n")
        if options.mode == "chunked":
            self.transport.write(b"0\r\n\r\n")
        if options.mode == "close" or not self.keep_alive:
            self.transport.close()

    def event(
        self, seen: Seen, piece: object, chat: bool, usage: object, finish: str | None = None
    ) -> bytes:
        choice: dict[str, object] = {"index": 0, "logprobs": None, "finish_reason": finish}
        if chat:
            choice["delta"] = piece if isinstance(piece, dict) else {"content": piece}
        else:
            choice["text"] = piece
        shape: dict[str, object] = {
            "id": "cmpl-7b0cf1c9d3a44d0e8d3c1c0f6a1b2c3d",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": 1763800000,
            "model": seen.body.get("model"),
            "choices": [choice],
        }
        if usage is not None:
            shape["usage"] = usage
        end = "\r\n" if self.options.crlf else "\n"
        return f"data: {json.dumps(shape, ensure_ascii=False)}{end}{end}".encode()

    async def send(self, data: bytes) -> None:
        if self.options.mode == "chunked":
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if not self.options.split_bytes:
            self.transport.write(data)
            return
        cuts = random.Random(len(data))
        while data:
            size = cuts.randint(1, self.options.split_bytes)
            self.transport.write(data[:size])
            data = data[size:]
            # So that the other side reads before the next cut is written.
            await asyncio.sleep(0.0002)


async def serve(options: argparse.Namespace) -> None:
    server = Server(options)
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: Connection(server), options.host, options.port)
    print(listening.sockets[0].getsockname()[1], flush=True)  # noqa: T201 that is its answer
    async with listening:
        await listening.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ttft-ms", type=float, default=5.0)
    parser.add_argument("--itl-ms", type=float, default=1.0)
    parser.add_argument("--tokens", type=int, default=0, help="0: as many as the request asks")
    parser.add_argument("--tokens-per-event", type=int, default=1)
    parser.add_argument("--tokens-per-word", type=float, default=1.0)
    parser.add_argument("--glue", type=int, default=1, help="events in one write")
    parser.add_argument("--split-bytes", type=int, default=0, help="longest write; 0: whole")
    parser.add_argument("--mode", choices=("chunked", "close"), default="chunked")
    parser.add_argument("--crlf", action="store_true")
    parser.add_argument("--status", type=int, default=200)
    parser.add_argument("--die-after-tokens", type=int, default=0, help="of all requests")
    parser.add_argument("--drop-after-tokens", type=int, default=0, help="of each request")
    parser.add_argument("--error-event", type=int, default=0, help="after so many tokens")
    parser.add_argument("--cached-share", type=float, default=0.0, help="of each prompt")
    parser.add_argument("--no-usage", action="store_true")
    parser.add_argument("--no-done", action="store_true")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
