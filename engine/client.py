"""The near end of the door: Control over the service's socket, which it starts when needed.

On this machine every call is a connection of its own. To another host a link is a whole ssh, so
those are kept and used again: one call at a time on each.
"""

import asyncio
import contextlib
import os
import platform
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from engine import __version__
from engine.control import (
    AnswerEnd,
    AnswerPiece,
    ApplyLayout,
    Catalogue,
    Change,
    CommandLine,
    HeldLayout,
    HeldWish,
    LogLines,
    Offer,
    Verification,
)
from engine.core.codec import to_builtins
from engine.core.errors import ControlError, ServiceUnreachable
from engine.core.status import Snapshot
from engine.core.topology import Machine
from engine.core.trail import PastFigures
from engine.host.paths import Paths
from engine.link import HostUnreachable, Link, LinkCut, open_link
from engine.reach import Reach, without_reach
from engine.starting import answers, require_own, start_service
from engine.unreachable import Gone, another_version, shown, unreachable, unreadable
from engine.wire import HOME, LIMIT_BYTES, PROTOCOL, Done, Hello, Line, Request, pack, unpack

_ANSWER_WITHIN_S = 60.0
_REPAIR_WITHIN_S = 3600.0
_BACK_WITHIN_S, _PAUSE_S = 60.0, 1.0
"""For what was lost to come back, where somebody waits for that."""

T = TypeVar("T")


Tell = Callable[[str], None]
Start = Callable[[], Awaitable[None]]


class ServiceClient:
    """Control over the service's socket.

    With `tell`, what only looks goes on where the link to another host is cut, or `start` starts
    the service again; both the loss and the return are told.
    """

    def __init__(
        self,
        paths: Paths,
        reach: Reach | None = None,
        *,
        tell: Tell | None = None,
        start: Start | None = None,
        who: str = "",
    ) -> None:
        self.name = f"{who or 'command'} {os.getpid()}"
        """As the service tells who has asked for a change."""
        if reach is not None and reach.host:
            self.name += f" on {platform.node()}"
        self._paths = paths
        self._reach = reach or Reach()
        self._tell, self._start = tell, start
        self._idle: list[tuple[Link, Hello]] = []
        self._home = ""

    async def machine(self) -> Machine:
        """The machine's facts as the service reads them now."""
        return await self._one("machine", {}, Machine)

    async def snapshot(self) -> Snapshot:
        """The newest snapshot."""
        return await self._kept(lambda: self._one("snapshot", {}, Snapshot))

    async def snapshots(self) -> AsyncIterator[Snapshot]:
        """Snapshots as they are taken; ends when the service goes away."""
        while True:
            try:
                async with self._call("snapshots", {}) as call:
                    while line := await call.line():
                        yield call.read(line, Snapshot)
                return
            except LinkCut as lost:
                again = await self._back(lost, lambda: self._one("snapshot", {}, Snapshot))
            yield again

    async def past(self) -> PastFigures:
        """The figures of the last minutes."""
        return await self._one("past", {}, PastFigures)

    async def offer(self, change: Change) -> Offer:
        """What the change would do; nothing happens yet.

        A layout from this machine has no folder on another one: its relative paths then begin at
        the home of the service's user, as those of scp do.
        """
        if self._reach.host and isinstance(change, ApplyLayout):
            name = f"{Path(change.name).name} (sent from {platform.node()})"
            change = replace(change, name=name, base=HOME)
        arguments = {"kind": type(change).__name__, "change": to_builtins(change)}
        return await self._one("offer", arguments, Offer)

    async def apply(self, offer: Offer) -> None:
        """Begin what was offered."""
        await self._one("apply", {"id": offer.id}, Done)

    async def verify(self, names: tuple[str, ...] = (), *, repair: bool = False) -> Verification:
        """What is asked against what is got; a repair may take as long as its pages need."""
        arguments = {"names": names, "repair": repair}
        return await self._one("verify", arguments, Verification, within_s=_REPAIR_WITHIN_S)

    async def command(self, name: str) -> CommandLine:
        """How the instance is started."""
        return await self._one("command", {"name": name}, CommandLine)

    async def layout(self) -> HeldLayout:
        """What is wished now, to be saved as a layout file."""
        held = await self._one("layout", {}, HeldLayout)
        return _from_elsewhere(held, self._home) if self._reach.host else held

    async def catalogue(self) -> Catalogue:
        """The engines and models for a new instance."""
        return await self._one("catalogue", {}, Catalogue)

    async def log(self, name: str, *, offset: int = -1, limit_bytes: int = 65536) -> LogLines:
        """A piece of an instance's log."""
        arguments = {"name": name, "offset": offset, "limit_bytes": limit_bytes}
        return await self._kept(lambda: self._one("log", arguments, LogLines))

    async def ask(
        self, name: str, prompt: str, *, max_tokens: int = 128
    ) -> AsyncIterator[AnswerPiece | AnswerEnd]:
        """One chat prompt, streamed; closing the iterator aborts it at the engine."""
        arguments = {"name": name, "prompt": prompt, "max_tokens": max_tokens}
        async with self._call("ask", arguments) as call:
            while line := await call.line():
                if msgspec.json.decode(line, type=Line).kind == AnswerPiece.__name__:
                    yield call.read(line, AnswerPiece)
                    continue
                end = call.read(line, AnswerEnd)
                call.is_over = True
                yield end
                return

    async def stop_service(self) -> None:
        """End the service; engines go on."""
        await self._one("stop_service", {}, Done)

    async def aclose(self) -> None:
        """Let go of the links that are kept between calls."""
        idle, self._idle = self._idle, []
        for link, _ in idle:
            await link.close()

    async def _kept(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            return await ask()
        except (LinkCut, Gone) as lost:
            return await self._back(lost, ask)

    async def _back(self, lost: ControlError, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer again; raises what was lost, or what keeps it away."""
        if self._tell is None or (isinstance(lost, Gone) and self._start is None):
            raise lost
        self._tell(f"{lost.what}: {lost.why}; trying again for {_BACK_WITHIN_S:g} s")
        deadline = asyncio.get_running_loop().time() + _BACK_WITHIN_S
        while True:
            try:
                if self._start is not None:
                    await self._start()
                answer = await ask()
            except (HostUnreachable, Gone):
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_PAUSE_S)
            else:
                self._tell(f"{self._reach.host or 'the service'} answers again")
                return answer

    async def _one(
        self,
        name: str,
        arguments: dict[str, Any],
        kind: type[T],
        *,
        within_s: float = _ANSWER_WITHIN_S,
    ) -> T:
        try:
            async with asyncio.timeout(within_s), self._call(name, arguments) as call:
                line = await call.line()
                if not line:
                    raise unreachable("it closed the connection without an answer")
                try:
                    return call.read(line, kind)
                finally:
                    call.is_over = True
        except TimeoutError:
            raise unreachable(f"it did not answer within {within_s:g} s") from None

    @contextlib.asynccontextmanager
    async def _call(self, name: str, arguments: dict[str, Any]) -> AsyncIterator["_Call"]:
        link, hello = await self._link()
        call = _Call(link, hello, self._reach)
        try:
            link.writer.write(pack(Request(name, arguments)))
            await link.writer.drain()
            yield call
        except (OSError, msgspec.DecodeError) as error:
            if isinstance(error, msgspec.DecodeError):
                raise unreadable(hello, str(error)) from None
            raise await call.lost(str(error) or type(error).__name__) from None
        finally:
            if call.is_over and self._reach.host and not link.is_dead:
                self._idle.append((link, hello))
            else:
                await link.close()

    async def _link(self) -> tuple[Link, Hello]:
        """One that is free, or a new one on which both sides have said who they are."""
        while self._idle:
            link, hello = self._idle.pop()
            if not link.is_dead:
                return link, hello
            await link.close()
        link = await self._open()
        try:
            hello = await self._greeted(link)
            ours = Hello(PROTOCOL, __version__, self.name, readonly=self._reach.readonly)
            link.writer.write(pack(ours))
        except BaseException:
            await link.close()
            raise
        return link, hello

    async def _open(self) -> Link:
        if self._reach.host:
            return await open_link(self._reach)
        try:
            link = Link(*await asyncio.open_unix_connection(self._paths.socket, limit=LIMIT_BYTES))
        except OSError as error:
            raise unreachable(error.strerror or str(error)) from None
        try:
            require_own(link.writer)
        except BaseException:
            await link.close()
            raise
        return link

    async def _greeted(self, link: Link) -> Hello:
        try:
            line = await _line(link.reader)
        except OSError:
            line = b""
        if not line and self._reach.host:
            raise await link.why_ended(self._reach, began=False)
        if not line:
            raise unreachable("it closed the connection without a word")
        try:
            hello = unpack(line, Hello)
        except msgspec.DecodeError:
            who = self._reach.host or "The service"
            raise ServiceUnreachable(
                what=f"{who} does not answer as slotdeck does",
                why=f"it began with {shown(line)}",
                do="Have its shell print nothing when no terminal is there (~/.bashrc)"
                if self._reach.host
                else f"End what serves {self._paths.socket}",
            ) from None
        if hello.protocol != PROTOCOL:
            raise another_version(hello, self._reach)
        self._home = hello.home
        return hello


class _Call:
    """One request on its link, and the lines that answer it."""

    def __init__(self, link: Link, hello: Hello, reach: Reach) -> None:
        self._link, self._hello, self._reach = link, hello, reach
        self.is_over = False
        """The last line was read: the link is free again."""

    async def line(self) -> bytes:
        """The next line; empty where the service has ended, an error where the link was cut."""
        line = await _line(self._link.reader)
        if not line and self._reach.host:
            raise await self._link.why_ended(self._reach, began=True)
        return line

    def read(self, line: bytes, kind: type[T]) -> T:
        """The value. Raises ControlError for a `Failure` and for what cannot be read."""
        try:
            return unpack(line, kind)
        except msgspec.DecodeError as error:
            raise unreadable(self._hello, str(error)) from None
        except ControlError:
            self.is_over = True
            raise

    async def lost(self, why: str) -> ControlError:
        """The words for a link that broke while it was used."""
        if self._reach.host:
            return await self._link.why_ended(self._reach, began=True)
        return unreachable(why)


async def connect(
    *,
    start: bool = True,
    paths: Paths | None = None,
    environment: Mapping[str, str] | None = None,
    reach: Reach | None = None,
    tell: Tell | None = None,
    who: str = "",
) -> ServiceClient:
    """A client of this user's service, which is started when there is none.

    With `start=False` a missing service raises ServiceUnreachable. On another host it is always
    started; what fails there raises HostUnreachable. With `tell` the client waits for what it
    loses on the way. `who` asks: a command, if it is not said.
    """
    if environment is None:
        environment = dict(os.environ)  # noqa: TID251 - the entry for both faces
    elif reach is None:
        reach = Reach.of(environment)
    paths = paths or Paths.of(environment)
    if reach is not None and reach.host:
        client = ServiceClient(paths, reach, tell=tell, who=who)
        try:
            await client.snapshot()  # the link is kept for the next call
        except ServiceUnreachable as error:
            # Not what callers take for "no service runs, so there is nothing".
            raise HostUnreachable(what=error.what, why=error.why, do=error.do) from None
        return client
    environment = without_reach(environment)

    async def start_again() -> None:
        if not await answers(paths):
            await start_service(paths, environment)

    if start:
        await start_again()
    elif not await answers(paths):
        raise unreachable("no service runs")
    return ServiceClient(paths, reach, tell=tell, start=start_again if start else None, who=who)


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return b""
    except asyncio.LimitOverrunError:
        raise unreachable("its answer is too long") from None


def _from_elsewhere(held: HeldLayout, home: str) -> HeldLayout:
    """A layout of another machine, to be saved on this one and sent there again.

    Relative paths that did not begin at the home there are made absolute; the file that it came
    from is not on this machine.
    """
    wishes = []
    for one in held.wishes:
        wish = one.wish
        if one.base and one.base != home:
            model, command = wish.model, wish.command
            # owner/name may be a hub's as well as a folder's: it stays as it was written.
            if (
                model
                and model[0] not in "/~"
                and ":" not in model
                and (model.startswith(".") or model.count("/") != 1)
            ):
                model = str(Path(one.base, model))
            if command and "/" in command[0] and command[0][0] not in "/~":
                command = (str(Path(one.base, command[0])), *command[1:])
            wish = msgspec.structs.replace(wish, model=model, command=command)
        wishes.append(HeldWish(wish, ""))
    return replace(held, wishes=tuple(wishes), path="")
