"""A connection to the service: its socket, or a program such as ssh that is joined to it."""

import asyncio
import contextlib
import re
import shlex
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from typing import IO

from engine.core.errors import ControlError
from engine.reach import Reach
from engine.wire import LIMIT_BYTES

_ENDS_WITHIN_S = 3.0


class HostUnreachable(ControlError):
    """The service on another machine cannot be reached, or the link to it was cut."""


class LinkCut(HostUnreachable):
    """The link had worked, and was lost on the way; the service there may go on."""


@dataclass(slots=True)
class Link:
    """A connection to the service, direct or through a program that is joined to it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    process: "subprocess.Popen[bytes] | None" = None
    stderr: IO[bytes] | None = None

    @property
    def is_dead(self) -> bool:
        """Whether nothing can come any more."""
        ended = self.process is not None and self.process.poll() is not None
        return ended or self.reader.at_eof() or self.writer.is_closing()

    async def close(self) -> None:
        """Leave; the program at the other end of the pipe follows."""
        self.writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(0.5):
                await self.writer.wait_closed()
        self.writer.transport.abort()  # nobody takes what is still to be written
        if self.process is not None:
            await self._ended(0.5)
            if self.process.returncode is None:
                self.process.terminate()
                await self._ended(_ENDS_WITHIN_S)
            if self.process.returncode is None:
                self.process.kill()
                self.process.wait()
        if self.stderr is not None:
            self.stderr.close()

    async def _ended(self, within_s: float) -> int | None:
        """The program's exit code; None while it lives."""
        deadline = asyncio.get_running_loop().time() + within_s
        while self.process is not None and self.process.poll() is None:
            if asyncio.get_running_loop().time() > deadline:
                return None
            await asyncio.sleep(0.01)
        return self.process.returncode if self.process is not None else None

    async def why_ended(self, reach: Reach, *, began: bool) -> HostUnreachable:
        """In words, why a link to another machine is no more; `began`: it had worked."""
        code = await self._ended(_ENDS_WITHIN_S)
        said = self._last_words()
        by_hand = shlex.join([*shlex.split(reach.ssh), reach.host])
        what = f"The link to {reach.host} was cut" if began else f"{reach.host} cannot be reached"
        do = "Engines go on there; try again"
        kind = LinkCut if began and code not in (None, 0) else HostUnreachable
        match code:
            case None | 0:
                why = "its service closed the connection"
            case 255:
                why = said or "ssh failed without a word"
                do = do if began else _cure(said, reach.host, by_hand)
            case 126 | 127 if not began:
                what = f"{reach.host} has no slotdeck that can be run"
                why = said or f"its shell does not find {reach.slotdeck}"
                do = "Install it there, or name it: --remote ~/venv/bin/slotdeck"
            case 2 if "relay" in said and not began:
                what = f"The slotdeck on {reach.host} is too old for --host"
                why, do = said, "Install this version there"
            case number if number < 0:
                why = f"{reach.ssh} was ended by signal {-number}"
            case number:
                why = said or f"{reach.ssh} ended with exit code {number}"
        return kind(what=what, why=why, do=do)

    def _last_words(self) -> str:
        if self.stderr is None:
            return ""
        self.stderr.seek(0)
        lines = self.stderr.read(1 << 16).decode(errors="replace").split("\n")
        told = [" ".join(line.split()) for line in lines if line.strip()]
        return "; ".join(line for line in told[-4:] if line.isprintable())[:600]


def _cure(said: str, host: str, by_hand: str) -> str:
    """What to do about ssh's own refusal, by its words (ssh(1), OpenSSH's of any age)."""
    name = host.rpartition("@")[2].removeprefix("ssh://").partition(":")[0] or host
    if "has changed" in said:
        return (
            f"If {name} was installed anew: `ssh-keygen -R {name}`, then `{by_hand} true`; "
            "if not, somebody else may answer in its place"
        )
    if "Host key verification failed" in said:
        return f"Its key is not known here: `{by_hand} true` shows it and asks"
    if "Could not resolve" in said:
        return "Correct the name, or give it an address in ~/.ssh/config"
    if re.search(r"Connection refused|timed out|No route to host|unreachable", said):
        return f"Is it on, and is that its port? `{by_hand} true` has to work"
    return (
        f"Try `{by_hand} true`: it has to work without a password "
        "(a key, an agent, or a shared connection of ssh)"
    )


async def open_link(reach: Reach) -> Link:
    """Start ssh, joined to us by a socket pair. Raises HostUnreachable."""
    ours, process, stderr = _spawn(reach)
    reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LIMIT_BYTES)
    return Link(reader, writer, process, stderr)


def _spawn(reach: Reach) -> "tuple[socket.socket, subprocess.Popen[bytes], IO[bytes]]":
    ours, theirs = socket.socketpair()
    stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the link
    try:
        argv = reach.argv()
        process = subprocess.Popen(
            argv,
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=stderr,
            start_new_session=True,  # ctrl+c in our terminal is for us; we end it
        )
    except (OSError, ControlError) as error:
        ours.close()
        stderr.close()
        if isinstance(error, ControlError):
            raise
        raise HostUnreachable(
            what=f"{reach.host} cannot be reached",
            why=f"{argv[0]} cannot be run: {error.strerror or error}",
            do="Install an ssh client, or name one: --ssh PROGRAM, or SLOTDECK_SSH",
        ) from None
    finally:
        theirs.close()
    return ours, process, stderr
