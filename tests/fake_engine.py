"""A fake engine: a real OpenAI-compatible server with bad manners on demand.

    python tests/fake_engine.py --port 8001 --ready-after 1 --itl-ms 20

It starts fast (standard library, raw sockets) and prints what it does.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

BEGAN = time.monotonic()
"""Of the machine's clock, the same in every process."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ready-after", type=float, default=0.0, metavar="S")
    parser.add_argument("--never-ready", action="store_true")
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--crash-after", type=float, metavar="S")
    parser.add_argument("--exit-code", type=int, default=1)
    parser.add_argument("--fork-child", action="store_true")
    parser.add_argument("--double-fork", action="store_true", help="an escapee that goes on")
    parser.add_argument("--hold-port", action="store_true", help="the escapee listens as well")
    parser.add_argument("--give-port-away", action="store_true", help="to one that is not ours")
    parser.add_argument("--titled-child", action="store_true", help="a title over its environment")
    parser.add_argument("--flood-bytes", type=int, default=0)
    parser.add_argument("--flood-when-asked", action="store_true", help="GET /flood floods again")
    parser.add_argument("--die-on-start", metavar="MESSAGE")
    parser.add_argument("--hang-health", action="store_true")
    parser.add_argument("--cut-completions", action="store_true", help="no token ever comes")
    parser.add_argument("--hang-after", type=int, metavar="N", help="after N tokens of an answer")
    parser.add_argument("--repin", metavar="CPULIST")
    parser.add_argument("--itl-ms", type=float, default=5.0)
    parser.add_argument("--tokens", type=int, help="of every answer, whatever is asked")
    parser.add_argument("--metrics", type=Path, help="a file served as /metrics, read each time")
    parser.add_argument("--busy", action="store_true", help="one thread spins")
    parser.add_argument("--touch-mib", type=int, default=0, help="memory to have and to touch")
    parser.add_argument("--write-stamp", type=Path, help="file that gets when it began")
    parser.add_argument("--write-fds", type=Path, help="file that gets our open descriptors")
    return parser.parse_args()


class Engine:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.started = time.monotonic()
        self.prompt_tokens = self.output_tokens = self.running = 0

    @property
    def is_ready(self) -> bool:
        waited = time.monotonic() - self.started
        return not self.options.never_ready and waited >= self.options.ready_after

    def metrics(self) -> str:
        if self.options.metrics is not None:
            return str(self.options.metrics.read_text())
        return (
            f"vllm:prompt_tokens_total {self.prompt_tokens}\n"
            f"vllm:generation_tokens_total {self.output_tokens}\n"
            f"vllm:num_requests_running {self.running}\n"
            "vllm:num_requests_waiting 0\n"
            "vllm:kv_cache_usage_perc 0.25\n"
        )

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                method, path, _ = lines[0].split(" ", 2)
                fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
                body = await reader.readexactly(int(fields.get("content-length", "0")))
                await self.answer(method, path, json.loads(body or b"{}"), writer)
                if fields.get("connection") == "close":
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def answer(
        self, method: str, path: str, body: dict[str, object], writer: asyncio.StreamWriter
    ) -> None:
        if path == "/health":
            if self.options.hang_health:
                await asyncio.sleep(3600)
            reply(writer, 200 if self.is_ready else 503, b"{}")
        elif path == "/v1/models":
            reply(writer, 200, json.dumps({"object": "list", "data": [{"id": "fake"}]}).encode())
        elif path == "/metrics":
            reply(writer, 200, self.metrics().encode(), "text/plain")
        elif path == "/flood" and self.options.flood_when_asked:
            await asyncio.to_thread(flood, self.options.flood_bytes)
            reply(writer, 200, b"{}")
        elif path == "/go" and method == "POST":
            reply(writer, 200, json.dumps(go(body)).encode())
        elif path in ("/v1/completions", "/v1/chat/completions") and method == "POST":
            await self.complete(path, body, writer)
        else:
            reply(writer, 404, b"{}")

    async def complete(
        self, path: str, body: dict[str, object], writer: asyncio.StreamWriter
    ) -> None:
        if not self.is_ready:
            reply(writer, 503, b"{}")
            return
        if self.options.cut_completions:
            writer.close()
            return
        chat = "chat" in path
        tokens = self.options.tokens or int(str(body.get("max_tokens", 16)))
        self.prompt_tokens += 2
        self.running += 1
        try:
            if body.get("stream"):
                await self.stream(chat, tokens, writer)
                return
            await asyncio.sleep(tokens * self.options.itl_ms / 1000)
            self.output_tokens += tokens
            text = "".join(f"t{number} " for number in range(tokens))
            choice = {"message": {"content": text}} if chat else {"text": text}
            usage = {"prompt_tokens": 2, "completion_tokens": tokens}
            answer = {"choices": [{**choice, "finish_reason": "length"}], "usage": usage}
            reply(writer, 200, json.dumps(answer).encode())
        finally:
            self.running -= 1

    async def stream(self, chat: bool, tokens: int, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(tokens):
            if number == self.options.hang_after:
                await asyncio.Event().wait()
            text = f"t{number} "
            choice = {"delta": {"content": text}} if chat else {"text": text}
            last = number == tokens - 1
            end = "length" if last else None
            event = json.dumps({"choices": [{"index": 0, **choice, "finish_reason": end}]})
            chunk(writer, f"data: {event}\n\n".encode())
            self.output_tokens += 1
            await writer.drain()
            await asyncio.sleep(self.options.itl_ms / 1000)
        usage = {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": tokens}}
        chunk(writer, b"data: " + json.dumps(usage).encode() + b"\n\ndata: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")


def reply(
    writer: asyncio.StreamWriter, status: int, body: bytes, kind: str = "application/json"
) -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


def chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def flood(count: int) -> None:
    line = b"x" * 99 + b"\n"
    block = line * 600
    while count > 0:
        os.write(1, block[:count])
        count -= len(block)


def escape(listener: int | None) -> None:
    """A child of a child in a session of its own, whose parent has ended."""
    words = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    held = () if listener is None else (listener,)
    launch = (
        "import subprocess; "
        f"subprocess.Popen({words!r}, start_new_session=True, pass_fds={held!r})"
    )
    subprocess.run([sys.executable, "-S", "-c", launch], check=True, pass_fds=held)


def give_away(listener: socket.socket) -> None:
    """Another program, without our mark and in a session of its own, that holds the port."""
    held = (listener.fileno(),)
    folders = {"XDG_STATE_HOME": os.environ.get("XDG_STATE_HOME", "")}  # noqa: TID251
    words = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    launch = (
        "import subprocess; "
        f"subprocess.Popen({words!r}, start_new_session=True, pass_fds={held!r}, env={folders!r})"
    )
    subprocess.run([sys.executable, "-S", "-c", launch], check=True, pass_fds=held)


TITLED = """
import ctypes, pathlib, time
fields = pathlib.Path("/proc/self/stat").read_text().rpartition(") ")[2].split()
first, last = int(fields[47]), int(fields[48])
ctypes.memset(first, 0, last - first)
time.sleep(600)
"""
"""As setproctitle does: what /proc shows as the environment is written over."""


def go(where: dict[str, object]) -> dict[str, object]:
    """Leave the place: `cpus` for its threads, `node` for its pages, by migrate_pages(2); or have
    `mib` more memory, or `lock` all of it.
    """
    cpus, node, mib = where.get("cpus"), where.get("node"), where.get("mib")
    if isinstance(mib, int):
        MORE.append(touched(mib))
    if isinstance(cpus, list):
        for thread in os.listdir("/proc/self/task"):  # noqa: PTH208
            os.sched_setaffinity(int(thread), {int(cpu) for cpu in cpus})
    left = 0
    if isinstance(node, int):
        import ctypes
        import platform

        old, new = ctypes.c_ulong(~(1 << node)), ctypes.c_ulong(1 << node)
        call = {"x86_64": 256, "aarch64": 238}[platform.machine()]
        mask = ctypes.byref
        left = ctypes.CDLL(None).syscall(
            call, os.getpid(), ctypes.c_ulong(65), mask(old), mask(new)
        )
    if where.get("lock"):
        import ctypes

        left = ctypes.CDLL(None).mlockall(1)
    return {"left": left}


MORE: list[bytearray] = []
"""Memory that somebody asked for later."""


def touched(mib: int) -> bytearray:
    memory = bytearray(mib << 20)
    for offset in range(0, len(memory), 4096):
        memory[offset] = 1
    return memory


def write_fds(path: Path) -> None:
    """One open descriptor a line, with what it is."""
    folder = Path("/proc/self/fd")
    shown = [f"{name} {target(folder / name)}" for name in sorted(os.listdir(folder))]  # noqa: PTH208
    path.write_text("\n".join(shown))


def target(link: Path) -> str:
    return str(link.readlink()) if link.is_symlink() else "closed by now"


def say(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201 - a server's log


def spin() -> None:
    while True:
        pass


def prepare(options: argparse.Namespace) -> socket.socket:
    """Everything before the first connection."""
    if options.write_stamp is not None:
        new = options.write_stamp.with_suffix(".new")
        new.write_text(str(BEGAN))
        new.replace(options.write_stamp)
    if options.write_fds is not None:
        write_fds(options.write_fds)
    say("fake engine, pid", os.getpid())
    if options.die_on_start is not None:
        say(options.die_on_start)
        sys.exit(options.exit_code)
    if options.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.repin:
        os.sched_setaffinity(0, {int(word) for word in options.repin.split(",")})
    if options.fork_child:
        subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    listener = socket.create_server(("127.0.0.1", options.port))
    if options.titled_child:
        child = subprocess.Popen([sys.executable, "-S", "-c", TITLED])
        while b"SLOTDECK" in Path(f"/proc/{child.pid}/environ").read_bytes():
            time.sleep(0.01)
    if options.give_port_away:
        give_away(listener)
    if options.double_fork:
        escape(listener.fileno() if options.hold_port else None)
    if options.busy:
        threading.Thread(target=spin, daemon=True).start()
    return listener


async def main(options: argparse.Namespace, listener: socket.socket) -> int:
    MORE.append(touched(options.touch_mib))
    await asyncio.start_server(Engine(options).serve, sock=listener)
    if options.flood_bytes and not options.flood_when_asked:
        await asyncio.to_thread(flood, options.flood_bytes)
        say("the flood is over")
    say("serving")
    if options.crash_after is not None:
        await asyncio.sleep(options.crash_after)
        say("fake engine: out of luck")
        os._exit(options.exit_code)
    await asyncio.sleep(3600)
    return 0


if __name__ == "__main__":
    chosen = arguments()
    sys.exit(asyncio.run(main(chosen, prepare(chosen))))
