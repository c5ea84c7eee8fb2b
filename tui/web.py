"""The panel in a browser: textual-serve on loopback, for whoever has the address with its token.

What a web page of somewhere else could try, and what stands against it:

* Open our websocket: browsers let any page do so, whatever its origin. The websocket's path holds
  a random token, and an Origin that is not this server's own is refused.
* Have its own name lead to 127.0.0.1 (DNS rebinding), so that its pages count as ours: a Host that
  is not this server's own is refused, for every path.
* Show us in a frame and guide clicks: no page may frame us.
* Read the address with the token out of a Referer: none is sent, and our page loads nothing from
  elsewhere.

Other users of this machine reach loopback as well: without the token they get nothing. Each
session is a panel of its own, without a shell in between, and read-only unless changes were
allowed; the service holds it to that.
"""

import argparse
import asyncio
import hmac
import ipaddress
import os
import secrets
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import aiohttp_jinja2
import jinja2
from aiohttp import web
from textual_serve.app_service import AppService
from textual_serve.server import Server

MOST_SESSIONS = 8
"""Each is a process of about 50 MB."""
END_WITHIN_S = 5.0
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'unsafe-inline'; "
    "style-src 'self' 'unsafe-inline'; font-src 'self' data:; img-src 'self' data:; "
    "connect-src 'self' {ws}; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Session(AppService):  # type: ignore[misc]  # textual-serve is untyped
    """One panel for one page, started without a shell."""

    def __init__(self, argv: Sequence[str], **to_browser: Any) -> None:
        super().__init__("", **to_browser, debug=False)
        self._argv = argv

    async def _open_app_process(self, width: int = 80, height: int = 24) -> Process:
        environment = self._build_environment(width=width, height=height)
        process = await asyncio.create_subprocess_exec(
            *self._argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment
        )
        self._process, self._stdin = process, process.stdin
        return process

    async def stop(self) -> None:
        """Ask it to end; a page that is gone must not leave a panel behind."""
        try:
            async with asyncio.timeout(END_WITHIN_S):
                await super().stop()
        except TimeoutError:
            pass
        finally:
            if self._process.returncode is None:
                await self._end(self._process)

    async def _end(self, process: Process) -> None:
        if process.stdin is not None:
            process.stdin.close()  # which a panel takes for the end of its terminal
        try:
            async with asyncio.timeout(END_WITHIN_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


class PanelServer(Server):  # type: ignore[misc]  # textual-serve is untyped
    """Textual-serve's pages and terminal behind a token, for our own origin alone."""

    def __init__(self, argv: Sequence[str], host: str, port: int, token: str) -> None:
        shown = f"[{host}]" if ":" in host else host
        super().__init__("slotdeck", shown, port, title="slotdeck")
        self._argv = argv
        self._address = host
        self._token = token
        self._sessions = 0
        self._names = {f"{shown}:{port}"}
        if is_loopback(host):
            self._names |= {f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"}

    @property
    def url(self) -> str:
        """The address to open; whoever has it may look."""
        return f"{self.public_url}/?token={self._token}"

    async def _make_app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        aiohttp_jinja2.setup(app, loader=jinja2.FileSystemLoader(self.templates_path))
        app.add_routes(
            [
                web.get("/", self.handle_index, name="index"),
                web.get(f"/ws/{self._token}", self.handle_websocket, name="websocket"),
                web.static("/static", self.statics_path, name="static"),
            ]
        )
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Nothing for pages of elsewhere, and no frame, no Referer, no cache of ours."""
        if request.headers.get("Host", "").lower() not in self._names:
            raise web.HTTPForbidden(text="This server answers under its own name only.\n")
        origin = request.headers.get("Origin")
        own = {f"http://{name}" for name in self._names}
        if origin is not None and origin.lower() not in own:
            raise web.HTTPForbidden(text="Pages of other origins get nothing here.\n")
        if request.path.startswith("/ws/") and origin is None:
            raise web.HTTPForbidden(text="A websocket without an Origin gets nothing here.\n")
        if request.path == "/" and not self._is_token(request.query.get("token", "")):
            words = "Open the address that `slotdeck serve` has printed, with its token.\n"
            raise web.HTTPForbidden(text=words)
        response = await handler(request)
        if not response.prepared:
            ws = f"ws://{request.headers['Host']}"
            response.headers.update({name: text.format(ws=ws) for name, text in HEADERS.items()})
        return response

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())

    async def handle_index(self, request: web.Request) -> web.StreamResponse:
        """Textual-serve's page, under the name it was asked for, without fonts of elsewhere."""
        self.public_url = f"http://{request.headers['Host']}"
        page: web.Response = await super().handle_index(request)
        text = page.text or ""
        start = text.find('<link\n      rel="stylesheet"\n      href="https://')
        if start >= 0:
            text = text[:start] + text[text.index("/>", start) + 2 :]
        return web.Response(text=text, content_type="text/html")

    async def handle_websocket(self, request: web.Request) -> web.StreamResponse:
        """One panel, for as long as the page is open."""
        if self._sessions >= MOST_SESSIONS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_SESSIONS} panels are open already.\n")
        self._sessions += 1
        socket = web.WebSocketResponse(heartbeat=15, max_msg_size=1 << 16)
        session = Session(
            self._argv,
            write_bytes=socket.send_bytes,
            write_str=socket.send_str,
            close=socket.close,
            download_manager=self.download_manager,
        )
        try:
            await socket.prepare(request)
            await session.start(*_size(request.query))
            try:
                await self._process_messages(socket, session)
            finally:
                await session.stop()
        except (ConnectionError, ValueError, TypeError, KeyError, LookupError, AssertionError):
            await socket.close()  # a page that is gone, or that is not ours: nothing is owed to it
        finally:
            self._sessions -= 1
        return socket

    async def serve_until_ended(self) -> None:
        """Listen, say where, and stay."""
        runner = web.AppRunner(await self._make_app())
        await runner.setup()
        try:
            await web.TCPSite(runner, self._address, self.port).start()
            sys.stdout.write(f"{self.url}\n")
            sys.stdout.flush()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _size(query: Mapping[str, str]) -> tuple[int, int]:
    """Columns and rows, whatever the page says."""
    columns, rows = (
        int(text) if text.isdecimal() and len(text) < 5 else usual
        for text, usual in ((query.get("width", ""), 80), (query.get("height", ""), 24))
    )
    return max(1, min(columns, 500)), max(1, min(rows, 200))


def main() -> int:
    """Serve what `slotdeck serve` has checked; 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="slotdeck serve")
    parser.add_argument("--listen", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--allow-changes", action="store_true")
    args = parser.parse_args()
    session = [sys.executable, "-P", "-m", "tui.web_session"]
    if not args.allow_changes:
        session.append("--readonly")
    token = secrets.token_urlsafe(24)
    try:
        asyncio.run(PanelServer(session, args.listen, args.port, token).serve_until_ended())
    except OSError as error:
        reason = error.strerror or str(error)
        sys.stderr.write(
            f"slotdeck: {args.listen}:{args.port} cannot be served\n  why: {reason}\n"
            "  do:  Choose another with --port\n"
        )
        return 1
    except KeyboardInterrupt:
        return 130
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
