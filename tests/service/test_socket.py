"""The control socket: for this user only, and no client can harm another."""

import asyncio
import contextlib
import json
import os
import socket
import stat
import sys
import time
from pathlib import Path

import pytest

from engine.core.errors import ControlError, ServiceUnreachable
from engine.service.connection import Inbox
from engine.wire import LIMIT_BYTES, PROTOCOL, Hello, pack
from tests.processes import WITHIN_S, Home, connections_to, eventually_async


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_socket_and_folders_are_private(home: Home) -> None:
    await home.connect()
    assert mode(home.paths.socket) == 0o600
    assert mode(home.paths.runtime) == 0o700
    assert mode(home.paths.state) == 0o700
    await home.up(await home.connect(), {"name": "a"})
    assert mode(home.paths.journal) == 0o600
    assert mode(home.paths.instance("a")) == 0o700


@pytest.mark.parametrize("wrong", ["link", "foreign", "open to all"])
async def test_an_unsafe_runtime_folder_is_refused(home: Home, wrong: str) -> None:
    runtime = home.paths.runtime
    if wrong == "link":
        target = home.folder / "target"
        target.mkdir()
        runtime.symlink_to(target)
    else:
        runtime.mkdir(mode=0o700)
        if wrong == "foreign":
            if os.getuid() != 0:
                pytest.skip("only root can give a folder away")
            os.chown(runtime, 12345, 12345)
        else:
            runtime.chmod(0o777)
    with pytest.raises(ControlError, match="is not safe: it is a link, or belongs to somebody"):
        await home.connect()
    assert not home.processes()


AS_ANOTHER_USER = """
import os, socket, sys
os.setgroups([]); os.setgid(12345); os.setuid(12345)
client = socket.socket(socket.AF_UNIX)
client.settimeout(20)
client.connect(sys.argv[1])
try:
    client.sendall(b'{"kind": "Request", "value": {"call": "snapshot"}}\\n')
    print(client.recv(100))
except (BrokenPipeError, ConnectionResetError):
    print(b"")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_another_user_is_refused(home: Home) -> None:
    await home.connect()
    # The folder and the socket's mode keep others out; open both, so that only the check is left.
    for path, open_to_all in (
        (home.folder, 0o755),
        (home.folder / "run", 0o755),
        (home.paths.runtime, 0o755),
        (home.paths.socket, 0o777),
    ):
        path.chmod(open_to_all)
    asking = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AS_ANOTHER_USER, str(home.paths.socket), stdout=-1, cwd="/"
    )
    said, _ = await asking.communicate()
    assert said == b"b''\n"
    await (await home.connect(start=False)).snapshot()


SERVED_BY_ANOTHER_USER = """
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o777)
os.setgroups([]); os.setgid(12345); os.setuid(12345)
server.listen()  # the peer's credentials are those of the one who listens
print("listens", flush=True)
while True:
    one, _ = server.accept()
    one.sendall(b'{"kind": "Hello", "value": {"protocol": 1, "version": "0"}}\\n')
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_a_service_of_another_user_is_not_talked_to(home: Home) -> None:
    home.paths.prepare()
    words = [sys.executable, "-c", SERVED_BY_ANOTHER_USER, str(home.paths.socket)]
    serving = await asyncio.create_subprocess_exec(*words, stdout=-1, cwd="/")
    assert serving.stdout is not None
    await serving.stdout.readline()
    with pytest.raises(ServiceUnreachable, match="the user with id 12345 serves its socket"):
        await home.connect()
    serving.kill()
    await serving.communicate()


HELLO = pack(Hello(PROTOCOL, "test"))


async def call(home: Home, line: bytes) -> bytes:
    """Hello dropped: what the service says to a line from a client that then says no more."""
    reader, writer = await asyncio.open_unix_connection(home.paths.socket, limit=LIMIT_BYTES)
    await reader.readline()
    with contextlib.suppress(OSError):
        writer.write(HELLO + line)
        writer.write_eof()
        await writer.drain()
    answer = b""
    with contextlib.suppress(OSError):
        answer = await asyncio.wait_for(reader.read(), WITHIN_S)
    writer.close()
    return answer


async def test_garbage_gets_an_answer_and_harms_nobody(home: Home) -> None:
    client = await home.connect()
    for line in (
        b"garbage\n",
        b"{}\n",
        b'{"kind": "Request", "value": {"call": 7}}\n',
        b'{"kind": "Request", "value": {"call": "offer", "arguments": {"kind": "Nothing"}}}\n',
        b'{"kind": "Request", "value": {"call": "log", "arguments": {"name": []}}}\n',
        b'{"kind": "Request", "value": {"call": "dance"}}\n',
        b'{"kind": "Dance", "value": {}}\n',
        b"\xff\xfe\n",
    ):
        failure = json.loads(await call(home, line))
        assert failure["kind"] == "Failure", line
        assert failure["value"]["do"]
    await call(home, b"x" * (LIMIT_BYTES + (1 << 20)) + b"\n")
    assert (await client.snapshot()).service_pid
    assert not [one.text for one in (await client.snapshot()).happenings if "bug" in one.text]


async def test_a_client_that_never_reads_holds_up_nobody(home: Home) -> None:
    client = await home.connect()
    pid = await home.service_pid()
    before = connections_to(home.paths.socket)
    with contextlib.ExitStack() as stack:
        watch = b'{"kind": "Request", "value": {"call": "snapshots"}}\n'
        for line in (HELLO + watch, b'{"half', b"", HELLO):
            for _ in range(3):
                deaf = stack.enter_context(socket.socket(socket.AF_UNIX))
                deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
                deaf.connect(str(home.paths.socket))
                deaf.sendall(line)
        seen = 0
        async for snapshot in client.snapshots():
            assert snapshot.service_pid == pid
            seen += 1
            if seen == 4:
                break
    await eventually_async(lambda: connections_to(home.paths.socket) <= before)


async def test_what_came_while_the_machine_stopped_us_is_read_before_time_is_over() -> None:
    reader = asyncio.StreamReader()
    inbox = Inbox(reader)
    waiting = asyncio.ensure_future(inbox.line_within(0.2))
    await asyncio.sleep(0)
    reader.feed_data(b"late\n")
    time.sleep(0.3)  # noqa: ASYNC251 - as a loaded machine does
    assert await waiting == b"late\n"
    with pytest.raises(TimeoutError):
        await inbox.line_within(0.02)
    await inbox.close()


async def test_too_many_clients_are_told(home: Home) -> None:
    client = await home.connect()
    with contextlib.ExitStack() as stack:
        for _ in range(70):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(home.paths.socket))
        with pytest.raises(ControlError, match="The service is busy: 64 clients are connected"):
            await client.snapshot()
    while True:
        with contextlib.suppress(ControlError):
            await client.snapshot()
            return
        await asyncio.sleep(0.05)
