"""One engine at a stage of its life beside one that nobody touches, and what tells of harm."""

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.client import ServiceClient
from engine.control import StopInstances
from engine.core.status import InstanceStatus, State
from engine.service.journal import peek_journal
from tests.processes import Home, alive, eventually_async

STAGES = ("starting", "ready", "stopping")
FLAGS = {"starting": "--never-ready", "ready": "--busy", "stopping": "--ignore-sigterm"}


class Watched:
    """A stream that goes on as long as its engine does: each token has its number."""

    def __init__(self, status: InstanceStatus) -> None:
        self._port = status.port
        self.tokens = 0
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        body = json.dumps({"model": "m", "prompt": "x", "max_tokens": 1 << 20, "stream": True})
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        try:
            while line := await reader.readline():
                if line.startswith(b"data: {"):
                    assert json.loads(line[6:])["choices"][0]["text"] == f"t{self.tokens} "
                    self.tokens += 1
        finally:
            writer.close()

    async def goes_on(self) -> None:
        """Some more tokens come, and none was lost."""
        wanted = self.tokens + 5
        await eventually_async(lambda: self.tokens >= wanted or self._reading.done())
        assert self.tokens >= wanted, f"it ended after {self.tokens} tokens: {self._reading}"

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


@dataclass
class Scene:
    """Engine `a` is at the stage; `b` is ready; a stranger is there whom nobody may signal."""

    home: Home
    stage: str
    client: ServiceClient
    a: InstanceStatus
    b: InstanceStatus
    stranger: asyncio.subprocess.Process
    beside_stream: Watched
    own_streams: list[Watched] = field(default_factory=list)

    @property
    def pid(self) -> int:
        assert self.a.pid is not None
        return self.a.pid

    @property
    def beside(self) -> int:
        assert self.b.pid is not None
        return self.b.pid

    async def ended(self) -> None:
        """`a` has been made to end: its streams are no more."""
        for stream in self.own_streams:
            await stream.close()
        self.own_streams.clear()

    async def next_service(self) -> None:
        """Another one takes over, as the next command has it."""
        self.client = await self.home.connect()

    async def became(self, state: State, *words: str, engines: set[int]) -> None:
        """`a` is in that state for that reason, and these engines are all that run."""
        status = await self.home.until_state(self.client, "a", state)
        for word in words:
            assert word in status.why, status.why
        await eventually_async(lambda: set(self.home.engines()) == engines)
        await self.nothing_else_happened()

    async def goes_on(self) -> None:
        """Nothing has happened to any engine."""
        await self.home.until(
            self.client,
            lambda now: (
                {"a", "b"} == now.keys()
                and (now["a"].pid, now["a"].state) == (self.pid, self.stage)
                and (now["b"].pid, now["b"].state) == (self.beside, "ready")
            ),
        )
        assert set(self.home.engines()) == {self.pid, self.beside}
        await self.nothing_else_happened()

    async def nothing_else_happened(self) -> None:
        """Streams go on, the stranger lives, the journal is whole, and nothing is called a bug."""
        for stream in (*self.own_streams, self.beside_stream):
            await stream.goes_on()
        assert alive(self.stranger.pid)
        assert self.stranger.returncode is None
        read = peek_journal(self.home.paths.journal)
        assert read.page is not None, read.problem
        told = [one.text for one in (await self.client.snapshot()).happenings]
        assert not [text for text in told if "bug" in text]


@contextlib.asynccontextmanager
async def scene(home: Home, stage: str, *, launcher: str = "") -> AsyncIterator[Scene]:
    """Both engines where they are to be, and the journal says so."""
    client = await home.served("idle_exit_s=600", launcher=launcher)
    flags = ["--itl-ms", "10", "--flood-bytes", str(8 << 20), "--flood-when-asked"]
    wishes = (
        {"name": "a", "flags": [*flags, FLAGS[stage]], "stop_grace_s": 600, "slot": "core:0"},
        {"name": "b", "flags": flags, "slot": "core:1"},
    )
    await home.apply(client, home.layout(*wishes))
    ready = "b" if stage == "starting" else "ab"
    await home.until(
        client,
        lambda now: (
            all(now[name].state == "ready" and now[name].verified is not None for name in ready)
            and now["a"].pid is not None
        ),
    )
    a, b = (await client.snapshot()).instances
    stranger = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
    own, beside = [] if stage == "starting" else [Watched(a)], Watched(b)
    if stage == "stopping":
        await home.apply(client, StopInstances(("a",)))
    try:
        await eventually_async(lambda: _written(home, stage))
        for stream in (*own, beside):
            await stream.goes_on()
        yield Scene(home, stage, client, a, b, stranger, beside, own)
    finally:
        for stream in (*own, beside):
            await stream.close()
        stranger.kill()
        await stranger.wait()


def _written(home: Home, stage: str) -> bool:
    row = home.journal()["instances"][0]
    return row["life"]["state"] == stage and row["launched"] is not None


@contextlib.contextmanager
def small_disk(folder: Path, options: str = "size=3m,nr_inodes=64") -> Iterator[Path]:
    """A real file system of its own, small enough to be filled; skips where it is refused."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    mounting = ["mount", "-t", "tmpfs", "-o", f"{options},mode=700", "tmpfs", str(folder)]
    if shutil.which("mount") is None:
        pytest.skip("there is no mount program")
    mounted = subprocess.run(mounting, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mount is refused: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """All of its blocks and all of its files; what there is can still be written in place."""
    ballast = disk / "ballast"
    ballast.mkdir()
    with contextlib.suppress(OSError), (ballast / "bytes").open("ab", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass
    with contextlib.suppress(OSError):
        for number in range(1 << 20):
            (ballast / str(number)).touch()
    return ballast
