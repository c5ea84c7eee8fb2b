"""An engine of exactly known timing: streams tokens on a schedule, and logs when it sent each.

    python benchmarks/truth_server.py --ttft-ms 50 --itl-ms 10

prints its port on the first line. Every chunk is due at an instant that is fixed when the request
has arrived; one kernel timer (timerfd) wakes the server for the next one, to some tens of
microseconds, and nothing else is done in between. `GET /log` returns, by prompt, when the request
arrived (the kernel's own stamp, however busy the server was), when it was read, and when each
chunk was handed to the socket, all by CLOCK_MONOTONIC.
"""

import argparse
import ctypes
import heapq
import json
import os
import random
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Any

from engine.worker.http_parser import RequestParser

SO_TIMESTAMPNS = 35
"""Of Linux; Python has no name for it."""


@dataclass
class Stream:
    """One request that is being answered."""

    connection: "Connection"
    dues: list[float]
    received_at: float
    body: dict[str, Any]
    sent: list[float] = field(default_factory=list)


@dataclass
class Connection:
    socket: socket.socket
    requests: RequestParser = field(default_factory=RequestParser)
    closes: bool = False


def schedule(options: argparse.Namespace, chunks: int, draw: random.Random) -> list[float]:
    """Seconds from the request's arrival until each chunk is due."""
    due = options.ttft_ms
    dues = []
    for number in range(chunks):
        if number:
            due += options.itl_ms * (1 + options.drift * number)
        if options.stall_every and number and number % options.stall_every == 0:
            due += options.stall_ms
        dues.append((due + draw.uniform(0, options.jitter_ms)) / 1e3)
    return sorted(dues)


class Timer:
    """A timerfd, armed for the earliest of the dues."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.timerfd_create(1, os.O_NONBLOCK | os.O_CLOEXEC)
        self._armed = 0.0

    def arm(self, at: float) -> None:
        if at == self._armed:
            return
        self._armed = at
        seconds, part = divmod(at, 1.0)
        when = (ctypes.c_long * 4)(0, 0, int(seconds), max(1, int(part * 1e9)))
        self._libc.timerfd_settime(self.fd, 1, when, None)

    def rang(self) -> None:
        self._armed = 0.0
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return


class Server:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.draw = random.Random(options.seed)
        self.streams: list[tuple[float, int, Stream]] = []
        self.log: dict[str, dict[str, Any]] = {}
        self.connections: dict[int, Connection] = {}
        self.listening = socket.create_server((options.host, options.port), backlog=4096)
        self.listening.settimeout(0.0)
        self.listening.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)  # Accepted ones inherit.
        self.epoll = select.epoll()
        self.timer = Timer()
        self._number = 0
        self._chunks: dict[tuple[bool, str], bytes] = {}

    def run(self) -> None:
        print(self.listening.getsockname()[1], flush=True)
        self.epoll.register(self.listening, select.EPOLLIN)
        self.epoll.register(self.timer.fd, select.EPOLLIN)
        while True:
            if self.streams:
                self.timer.arm(self.streams[0][0])
            for fd, _ in self.epoll.poll():
                if fd == self.timer.fd:
                    self.timer.rang()
                elif fd == self.listening.fileno():
                    self._accept()
                else:
                    connection = self.connections.get(fd)
                    if connection is not None:  # It may have been closed since.
                        self._read(connection)
                self._send_due()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self.listening.accept()
            except BlockingIOError:
                return
            accepted.settimeout(0.0)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections[accepted.fileno()] = Connection(accepted)
            self.epoll.register(accepted, select.EPOLLIN)

    def _close(self, connection: Connection) -> None:
        self.connections.pop(connection.socket.fileno(), None)
        connection.socket.close()

    def _read(self, connection: Connection) -> None:
        try:
            data, told, _, _ = connection.socket.recvmsg(1 << 20, 64)
        except OSError:
            data, told = b"", []
        at = time.monotonic()
        arrived = at
        if told:
            seconds, nanoseconds = struct.unpack("qq", told[0][2])
            waited = time.clock_gettime(time.CLOCK_REALTIME) - (seconds + nanoseconds / 1e9)
            arrived = at - max(0.0, waited)
        if not data:
            self._close(connection)
            return
        connection.requests.feed(data)
        request = connection.requests.next()
        if request is None:
            return
        connection.closes = not request.keep_alive
        if request.method == "POST" and request.path.endswith("completions"):
            self._begin(connection, json.loads(request.body), at, arrived)
        elif request.path == "/log":
            self._plain(connection, self.log)
        elif request.path == "/v1/models":
            self._plain(connection, {"object": "list", "data": [{"id": "truth"}]})
        else:
            self._plain(connection, {})

    def _begin(
        self, connection: Connection, body: dict[str, Any], at: float, arrived: float
    ) -> None:
        prompt = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        tokens = int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)
        chunks = -(-tokens // self.options.tokens_per_chunk)
        dues = [at + due for due in schedule(self.options, chunks, self.draw)]
        stream = Stream(connection, dues, at, body)
        self.log[str(prompt)] = {
            "arrived_at": arrived,
            "received_at": at,
            "sent": stream.sent,
            "tokens": tokens,
        }
        self._write(
            connection,
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n",
        )
        self._number += 1
        heapq.heappush(self.streams, (dues[0], self._number, stream))

    def _send_due(self) -> None:
        while self.streams and self.streams[0][0] <= time.monotonic():
            _, number, stream = heapq.heappop(self.streams)
            if stream.connection.socket.fileno() < 0:
                continue
            done = len(stream.sent)
            data = self._chunk(stream)
            stream.sent.append(time.monotonic())
            if done + 1 < len(stream.dues):
                self._write(stream.connection, data)
                heapq.heappush(self.streams, (stream.dues[done + 1], number, stream))
                continue
            self._write(stream.connection, data + self._end(stream))
            if stream.connection.closes:
                self._close(stream.connection)

    def _chunk(self, stream: Stream) -> bytes:
        """In vLLM's shape and about its size; made once, since they are all alike."""
        key = ("messages" in stream.body, str(stream.body.get("model")))
        if key not in self._chunks:
            chat, model = key
            text = " token" * self.options.tokens_per_chunk
            choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": None}
            choice |= {"delta": {"content": text}} if chat else {"text": text, "stop_reason": None}
            self._chunks[key] = _framed(
                {
                    "id": "cmpl-7b0cf1c9d3a44d0e8d3c1c0f6a1b2c3d",
                    "object": "chat.completion.chunk" if chat else "text_completion",
                    "created": 1763800000,
                    "model": model,
                    "choices": [choice],
                }
            )
        return self._chunks[key]

    def _end(self, stream: Stream) -> bytes:
        asked = stream.body.get("stream_options") or {}
        prompt = str(stream.body.get("prompt", ""))
        usage = {
            "prompt_tokens": len(prompt.split()) + 1,
            "completion_tokens": len(stream.dues) * self.options.tokens_per_chunk,
        }
        usage["total_tokens"] = sum(usage.values())
        last = _framed({"object": "text_completion", "choices": [], "usage": usage})
        done = b"data: [DONE]\n\n"
        end = b"%x\r\n%b\r\n0\r\n\r\n" % (len(done), done)
        return (last if asked.get("include_usage") else b"") + end

    def _plain(self, connection: Connection, value: object) -> None:
        body = json.dumps(value).encode()
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        connection.socket.settimeout(None)
        connection.socket.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        connection.socket.settimeout(0.0)
        if connection.closes:
            self._close(connection)

    def _write(self, connection: Connection, data: bytes) -> None:
        """A client that does not read is cut: waiting for it would move everybody's schedule."""
        try:
            sent = connection.socket.send(data)
        except OSError:
            sent = -1
        if sent != len(data):
            self._close(connection)


def _framed(value: object) -> bytes:
    event = b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ttft-ms", type=float, default=50.0)
    parser.add_argument("--itl-ms", type=float, default=10.0)
    parser.add_argument("--jitter-ms", type=float, default=0.0, help="each chunk up to so late")
    parser.add_argument("--drift", type=float, default=0.0, help="of each gap, for each token")
    parser.add_argument("--stall-every", type=int, default=0, metavar="CHUNKS")
    parser.add_argument("--stall-ms", type=float, default=0.0)
    parser.add_argument("--tokens-per-chunk", type=int, default=1)


def urgent(cpu: int | None) -> None:
    """Keep to one CPU and before everybody else there, where that is allowed."""
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fifo-cpu", type=int, help="run there before everybody else (root)")
    arguments(parser)
    options = parser.parse_args()
    urgent(options.fifo_cpu)
    Server(options).run()


if __name__ == "__main__":
    main()
