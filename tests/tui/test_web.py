"""The panel in a browser: whoever has the address sees it; pages of elsewhere get nothing."""

import asyncio
import http.client
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from engine.cli.main import main
from tests.processes import Home, a_home, eventually
from tests.tui.browser import browser

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Served:
    """A running `slotdeck serve`."""

    home: Home
    pid: int
    url: str

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    @property
    def token(self) -> str:
        return parse_qs(urlsplit(self.url).query)["token"][0]

    @property
    def websocket(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/{self.token}?width=100&height=30"

    def get(self, path: str, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer

    def panels(self) -> list[int]:
        """Panels that pages have open."""
        told = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in told.split()]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def served(*words: str) -> Iterator[Served]:
    with a_home() as home:
        argv = [
            sys.executable,
            "-m",
            "engine.cli.main",
            "serve",
            "--port",
            str(free_port()),
            *words,
        ]
        process = subprocess.Popen(
            argv, env=home.environment, cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            yield Served(home, process.pid, process.stdout.readline().strip())
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
            process.stdout.close()


@pytest.fixture(scope="module")
def looked() -> Iterator[Served]:
    """One that only shows, for all tests here."""
    with served() as one:
        yield one


def test_only_the_address_with_its_token_is_answered(looked: Served) -> None:
    own = f"/?token={looked.token}"
    page = looked.get(own)
    assert page.status == 200
    assert page.headers["X-Frame-Options"] == "DENY"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert looked.get(own, Host=f"localhost:{looked.port}").status == 200
    for path, headers in (
        ("/", {}),
        ("/?token=", {}),
        (f"/?token={looked.token[:-1]}", {}),
        (own, {"Host": f"evil.example:{looked.port}"}),
        (own, {"Host": "127.0.0.1"}),
        (own, {"Origin": "http://evil.example"}),
        (own, {"Origin": "null"}),
        ("/static/js/textual.js", {"Host": "evil.example"}),
        ("/static/js/textual.js", {"Origin": "https://evil.example"}),
    ):
        assert looked.get(path, **headers).status == 403, (path, headers)
    assert looked.get("/static/").status in (403, 404)
    assert looked.get("/static/../../../../../../etc/passwd").status in (403, 404)
    assert looked.get("/download/x").status == 404


@pytest.mark.parametrize(
    ("origin", "token", "status"),
    [
        ("http://evil.example", None, 403),
        ("http://127.0.0.1", None, 403),
        ("null", None, 403),
        ("", None, 403),
        (None, "wrong", 404),
    ],
)
async def test_websockets_of_others_are_refused(
    looked: Served, origin: str | None, token: str | None, status: int
) -> None:
    headers = {"Origin": f"http://127.0.0.1:{looked.port}" if origin is None else origin}
    if origin == "":
        headers = {}
    url = looked.websocket.replace(looked.token, token or looked.token)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(url, headers=headers)
    assert caught.value.status == status
    assert looked.panels() == []


async def test_a_session_shows_and_ends_with_its_page(looked: Served) -> None:
    headers = {"Origin": f"http://127.0.0.1:{looked.port}"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(looked.websocket, headers=headers) as page,
    ):
        seen = ""
        async with asyncio.timeout(120):
            while "read-only" not in seen or "No instances yet" not in seen:
                message = await page.receive()
                if message.type is aiohttp.WSMsgType.BINARY:
                    seen += message.data.decode(errors="replace")
        assert len(looked.panels()) == 1
        await page.send_str("no json")  # a page that is not ours
    eventually(lambda: looked.panels() == [])


def test_a_real_browser_shows_it_and_a_page_of_elsewhere_gets_nothing(looked: Served) -> None:
    with browser() as page:
        page.open(looked.url)
        page.until("return window.seen.includes('No instances yet')")
        page.until("return document.body.classList.contains('-first-byte')")
        page.run("document.querySelector('textarea').focus()")
        page.press("x")
        page.until("return window.seen.includes('was opened with --readonly')")
        assert len(looked.panels()) == 1
        with elsewhere() as origin:
            page.open(origin)
            page.run(
                f"""window.opened = window.failed = 0;
                for (const url of [{looked.websocket!r}, {looked.websocket!r}.replace(
                    "127.0.0.1", "localhost")]) {{
                  const socket = new WebSocket(url);
                  socket.onopen = () => window.opened++;
                  socket.onerror = () => window.failed++;
                }}
                const frame = document.createElement("iframe");
                frame.src = {looked.url!r};
                frame.onload = () => {{ window.framed = true; }};
                document.body.append(frame);"""
            )
            page.until("return window.failed === 2 && window.framed === true")
            assert page.run("return window.opened") == 0
            assert page.run("return document.querySelector('iframe').contentDocument") is None
        eventually(lambda: looked.panels() == [])


@contextmanager
def elsewhere() -> Iterator[str]:
    """A page of another origin."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<body>elsewhere</body>")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_changes_are_allowed_only_when_said() -> None:
    async def first_words(one: Served) -> str:
        headers = {"Origin": f"http://127.0.0.1:{one.port}"}
        seen = ""
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(one.websocket, headers=headers) as page,
            asyncio.timeout(120),
        ):
            while "No instances yet" not in seen:
                message = await page.receive()
                if message.type is aiohttp.WSMsgType.BINARY:
                    seen += message.data.decode(errors="replace")
        return seen

    with served("--allow-changes") as one:
        assert "read-only" not in asyncio.run(first_words(one))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--listen", "0.0.0.0"], "say --trust-network"),
        (["--listen", "::"], "say --trust-network"),
        (["--listen", "192.0.2.1"], "say --trust-network"),
        (["--listen", "server.example"], "is no address"),
        (["--port", "70000"], "is no port"),
    ],
)
def test_where_it_is_not_served(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *words]) == 2
    assert why in capsys.readouterr().err


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "engine.cli.main", "serve", "--port", port],
            cwd=ROOT,
            env={"PATH": os.defpath, "HOME": "/nonexistent"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "Choose another with --port" in done.stderr
