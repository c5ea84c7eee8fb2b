"""Two versions that meet: both are named, what to do is said, and nothing is half understood."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine import __version__
from engine.client import connect
from engine.core.errors import ControlError, ServiceUnreachable
from engine.unreachable import AnotherVersion
from engine.wire import LIMIT_BYTES, PROTOCOL, Hello, Request, pack
from tests.processes import ROOT, WITHIN_S, Home, alive, eventually_async

OURS = rf"this side slotdeck {__version__} \(protocol {PROTOCOL}\)"


@contextlib.asynccontextmanager
async def served_by(home: Home, *lines: bytes) -> AsyncIterator[None]:
    """Somebody at the socket who says these lines to everybody."""
    home.paths.prepare()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.writelines(lines)
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(serve, home.paths.socket)
    try:
        yield
    finally:
        server.close()


@pytest.mark.parametrize(
    ("step", "what", "do"),
    [
        (
            1,
            "The service is a newer slotdeck",
            r"Use slotdeck 9\.9 here .* `slotdeck service stop`",
        ),
        (-1, "The service is an older slotdeck", "End the old service: `slotdeck service stop`"),
    ],
)
async def test_another_protocol_is_named(home: Home, step: int, what: str, do: str) -> None:
    hello = {"protocol": PROTOCOL + step, "version": "9.9", "unknown": [1]}
    async with served_by(home, json.dumps({"kind": "Hello", "value": hello}).encode() + b"\n"):
        client = await connect(environment=home.environment)
        with pytest.raises(AnotherVersion, match=what) as raised:
            await client.snapshot()
    theirs = rf"slotdeck 9\.9 \(protocol {PROTOCOL + step}\), {OURS}"
    assert raised.match(theirs)
    assert raised.match(do)
    assert raised.match("engines go on")


async def test_an_answer_that_cannot_be_read_names_both_versions(home: Home) -> None:
    answer = json.dumps({"kind": "Snapshot", "value": {"sampled_at": {}}}).encode() + b"\n"
    async with served_by(home, pack(Hello(PROTOCOL, "9.9")), answer):
        client = await connect(environment=home.environment)
        with pytest.raises(ServiceUnreachable, match=r"service is slotdeck 9\.9") as raised:
            await client.snapshot()
        assert raised.match(OURS)
        with pytest.raises(ServiceUnreachable, match=OURS):
            async for _ in client.snapshots():
                pass


@pytest.mark.parametrize("line", [b"Welcome to Linux!\n", b"{}\n", b"\xff\x1b[2J\n"])
async def test_something_else_at_the_socket_is_shown(home: Home, line: bytes) -> None:
    async with served_by(home, line):
        client = await connect(environment=home.environment)
        with pytest.raises(ServiceUnreachable, match="does not answer as slotdeck") as raised:
            await client.snapshot()
    assert str(raised.value).isprintable()


async def say(home: Home, *lines: bytes) -> list[dict[str, Any]]:
    """What the service answers to these lines on one connection, its own Hello first."""
    reader, writer = await asyncio.open_unix_connection(home.paths.socket, limit=LIMIT_BYTES)
    writer.writelines(lines)
    writer.write_eof()
    answers = (await asyncio.wait_for(reader.read(), WITHIN_S)).splitlines()
    writer.close()
    return [json.loads(answer) for answer in answers]


async def test_the_service_names_both_versions_too(home: Home) -> None:
    await home.connect()
    look = pack(Request("snapshot"))
    hello, newer = await say(home, pack(Hello(PROTOCOL + 1, "9.9")), look)
    assert hello["value"]["version"] == __version__
    assert hello["value"]["protocol"] == PROTOCOL
    assert newer["kind"] == "Failure"
    assert "slotdeck 9.9 (protocol 3)" in newer["value"]["why"]
    assert f"slotdeck {__version__} (protocol {PROTOCOL})" in newer["value"]["why"]

    _, silent = await say(home, look)
    assert silent["value"]["what"] == "The service does not know who speaks"

    hello_line = pack(Hello(PROTOCOL, "9.9"))
    _, wrong = await say(home, hello_line, pack(Request("log", {"name": "a", "offset": {}})))
    assert wrong["kind"] == "Failure"


async def test_what_is_not_known_leaves_the_connection_as_it_was(home: Home) -> None:
    await home.connect()
    answers = await say(
        home,
        pack(Hello(PROTOCOL, "9.9")),
        b"garbage\n",
        b'{"kind": "Dance", "value": {"steps": 3}}\n',
        pack(Request("dance")),
        pack(Request("offer", {"kind": "Nothing"})),
        pack(Request("snapshot")),
        pack(Request("machine")),
    )
    kinds = [answer["kind"] for answer in answers]
    assert kinds == ["Hello", *["Failure"] * 4, "Snapshot", "Machine"]
    assert "slotdeck 9.9" in answers[2]["value"]["why"]
    assert "a Dance instead of a Request" in answers[2]["value"]["why"]


async def test_a_line_that_is_too_long_ends_the_connection(home: Home) -> None:
    client = await home.connect()
    with contextlib.suppress(OSError):
        too_long = b'"' + b"x" * (LIMIT_BYTES + 10) + b'"\n'
        answers = await say(home, pack(Hello(PROTOCOL, "9")), too_long, pack(Request("machine")))
        assert [answer["kind"] for answer in answers] == ["Hello", "Failure"]
    assert (await client.snapshot()).service_pid


# Read-only connections


READONLY = pack(Hello(PROTOCOL, "9.9", readonly=True))


async def test_a_read_only_connection_changes_nothing(home: Home) -> None:
    client = await home.connect()
    await home.up(client, {"name": "a"})
    pid = await home.service_pid()
    stop = {"kind": "StopInstances", "change": {"names": ["a"]}}
    _, *answers = await say(
        home,
        READONLY,
        pack(Hello(PROTOCOL, "9.9")),  # a promise is not taken back
        pack(Request("offer", stop)),
        pack(Request("apply", {"id": "1"})),
        pack(Request("verify", {"names": ["a"]})),
        pack(Request("verify", {"names": ["a"], "repair": True})),
        pack(Request("layout")),
        pack(Request("stop_service")),
        pack(Request("machine")),
    )
    assert [answer["kind"] for answer in answers] == [
        *("Offer", "Failure", "Verification"),
        *["Failure"] * 3,
        "Machine",
    ]
    for answer in answers:
        if answer["kind"] == "Failure":
            assert answer["value"]["what"] == "Nothing was changed"
            assert "read-only" in answer["value"]["why"]
            assert "--readonly" in answer["value"]["do"]
    offered = answers[0]["value"]["id"]
    _, refused = await say(home, READONLY, pack(Request("apply", {"id": offered})))
    assert refused["kind"] == "Failure"
    (one,) = (await client.snapshot()).instances
    assert (one.name, one.state.value) == ("a", "ready")
    assert await home.service_pid() == pid


# An old service is ended by the command that its words name


async def test_a_service_of_another_version_can_be_ended(home: Home) -> None:
    code = "import engine.service.connection as one; one.PROTOCOL = 1"
    client = home.start_service(launcher=code)
    await eventually_async(lambda: home._accepts() or client.poll() is not None)
    with pytest.raises(AnotherVersion, match="an older slotdeck"):
        await (await home.connect(start=False)).snapshot()

    def cli(*words: str) -> "subprocess.CompletedProcess[str]":
        argv = [sys.executable, "-m", "engine.cli.main", *words]
        return subprocess.run(
            argv, env=home.environment, cwd=ROOT, capture_output=True, text=True, check=False
        )

    for words in (("status",), ("service", "status"), ("up", "nothing.toml")):
        assert (await asyncio.to_thread(cli, *words)).returncode in (1, 2)
    refused = await asyncio.to_thread(cli, "--readonly", "service", "stop")
    assert refused.returncode == 2
    assert alive(client.pid)
    done = await asyncio.to_thread(cli, "service", "stop")
    assert done.returncode == 0, done.stderr
    assert "its engines go on" in done.stdout
    assert client.wait(10) == 0
    with pytest.raises(ControlError):
        await home.connect(start=False)
