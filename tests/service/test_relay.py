"""The relay: bytes both ways as they are, and an end as soon as either side ends."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from engine.core.status import Snapshot
from engine.wire import PROTOCOL, Hello, Line, Request, pack, unpack
from tests.processes import ROOT, WITHIN_S, Home, alive, connections_to, eventually_async


@contextlib.asynccontextmanager
async def relay(home: Home, *words: str, **more: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    argv = [sys.executable, "-m", "engine.cli.main", "relay", *words]
    pipes: dict[str, Any] = {"stdin": -1, "stdout": -1, "stderr": -1, **more}
    made = await asyncio.create_subprocess_exec(
        *argv, env=home.environment, cwd=ROOT, limit=1 << 24, **pipes
    )
    try:
        yield made
    finally:
        if made.returncode is None:
            made.kill()
        await made.communicate()


async def line_of(one: asyncio.subprocess.Process) -> bytes:
    assert one.stdout is not None
    return await asyncio.wait_for(one.stdout.readline(), WITHIN_S)


def say(one: asyncio.subprocess.Process, *values: object) -> None:
    assert one.stdin is not None
    one.stdin.writelines(pack(value) for value in values)


ME = Hello(PROTOCOL, "test")


async def test_it_starts_the_service_and_joins_both_ways(home: Home) -> None:
    async with relay(home) as one:
        hello = unpack(await line_of(one), Hello)
        assert hello.protocol == PROTOCOL
        assert hello.home == home.environment["HOME"]
        say(one, ME, Request("snapshot"), Request("snapshot"))
        first = unpack(await line_of(one), Snapshot)
        assert unpack(await line_of(one), Snapshot).service_pid == first.service_pid
        assert first.service_pid == await home.service_pid()
        assert one.stdin is not None
        one.stdin.close()  # the near side ends
        assert await asyncio.wait_for(one.wait(), WITHIN_S) == 0
    assert alive(first.service_pid)


async def test_it_ends_with_the_service(home: Home) -> None:
    client = await home.connect()
    async with relay(home) as one:
        await line_of(one)
        say(one, ME, Request("snapshots"))
        await line_of(one)
        await client.stop_service()
        assert await asyncio.wait_for(one.wait(), WITHIN_S) == 0
        assert one.stderr is not None
        assert await one.stderr.read() == b""


async def test_it_ends_when_nobody_reads_any_more(home: Home) -> None:
    await home.connect()
    read, write = os.pipe()
    async with relay(home, stdout=write) as one:
        os.close(write)
        os.read(read, 1)
        say(one, ME, Request("snapshots"))
        os.close(read)
        assert await asyncio.wait_for(one.wait(), WITHIN_S) == 0


async def test_what_is_not_taken_waits_at_the_service(home: Home) -> None:
    """A deaf reader: the relay holds a piece only, and the service gives the client up."""
    client = await home.served("slow_client_s=3")
    await home.up(client, {"name": "a"})
    log = next(home.paths.instance("a").glob("log-*"))
    log.write_bytes(b"0123456789abcde\n" * (1 << 16))
    pid = await home.service_pid()
    # A call has a connection of its own, which the service closes in its own time.
    await eventually_async(lambda: not connections_to(home.paths.socket))
    read, write = os.pipe()
    async with relay(home, stdout=write) as one:
        os.close(write)
        os.read(read, 1)
        # Tens of MB of answers: more than all buffers on the way.
        say(one, ME, *[Request("log", {"name": "a", "offset": 0, "limit_bytes": 1 << 20})] * 40)
        await eventually_async(lambda: not connections_to(home.paths.socket))
        assert rss_bytes(one.pid) < 100 << 20
        assert (await client.snapshot()).service_pid == pid
        os.close(read)


def rss_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_large_answers_come_through_whole(home: Home) -> None:
    client = await home.connect()
    await home.up(client, {"name": "a"})
    log = next(home.paths.instance("a").glob("log-*"))
    log.write_bytes(b"0123456789abcde\n" * (1 << 16))
    async with relay(home) as one:
        await line_of(one)
        say(one, ME, Request("log", {"name": "a", "offset": 0, "limit_bytes": 1 << 20}))
        line = msgspec.json.decode(await line_of(one), type=Line)
        assert line.kind == "LogLines"
        assert len(line.value) > 1 << 20


@pytest.mark.parametrize("client_says", [False, True])
async def test_a_read_only_relay_changes_nothing(home: Home, client_says: bool) -> None:
    client = await home.connect()
    async with relay(home, "--readonly") as one:
        await line_of(one)
        say(one, Hello(PROTOCOL, "test", readonly=client_says), Request("stop_service"))
        with pytest.raises(Exception, match="this connection is read-only"):
            unpack(await line_of(one), Snapshot)
        say(one, Request("snapshot"))
        assert unpack(await line_of(one), Snapshot).service_pid
    assert (await client.snapshot()).service_pid


async def test_it_says_why_there_is_no_service(home: Home) -> None:
    home.paths.runtime.symlink_to(home.folder)
    async with relay(home) as one:
        out, told = await one.communicate()
    assert (one.returncode, out) == (1, b"")
    assert b"is not safe" in told
