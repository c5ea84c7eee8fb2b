"""A comparison as a process of its own: `slotdeck ab … --progress`, telling and told by lines."""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import IO, Protocol

from engine.core.comparing.telling import Ended, Failed, Told, told_in
from engine.core.errors import ControlError

LONGEST_LINE = 1 << 20


class Comparison(Protocol):
    """One that has been started, and does nothing before it is told to."""

    def told(self) -> AsyncIterator[Told]:
        """What it tells, to its end."""
        ...

    def say(self, order: str) -> None:
        """One of the orders in `engine.core.comparing.telling`."""
        ...

    def let_go(self) -> None:
        """Listen no more: it ends by itself, and puts back what ran before."""
        ...


Compare = Callable[[Sequence[str]], Comparison]
"""Starts one, given the words after `slotdeck ab`."""


class AbProcess:
    """The load generator's time is then not ours, nor ours its; whoever dies, it puts back."""

    def __init__(self, process: "subprocess.Popen[bytes]", errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors
        assert process.stdin is not None
        self._orders = process.stdin

    @classmethod
    def start(cls, environment: Mapping[str, str], words: Sequence[str]) -> "AbProcess":
        """Raises ControlError."""
        errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "engine.cli.main", "ab", *words, "--progress"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(environment),
                # The terminal's Ctrl-C and its end are for the panel; this one ends with its pipe.
                start_new_session=True,
            )
        except OSError as error:
            errors.close()
            raise ControlError(
                what="The comparison could not be started",
                why=error.strerror or str(error),
                do="Free some memory or processes, then try again",
            ) from None
        return cls(process, errors)

    async def told(self) -> AsyncIterator[Told]:
        assert self._process.stdout is not None
        reader = asyncio.StreamReader(limit=LONGEST_LINE)
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._process.stdout
        )
        last: Told | None = None
        ended = False
        try:
            while line := await reader.readline():
                if (told := told_in(line)) is not None:
                    last = told
                    yield told
            ended = True
        finally:
            pipe.close()
            if not ended:
                self.let_go()
        self._close()
        code = await asyncio.to_thread(self._process.wait)
        if code and not isinstance(last, Ended | Failed):
            yield Failed(
                f"The comparison ended with {'signal' if code < 0 else 'code'} {abs(code)}",
                self._last_words() or "it said nothing",
                "",
            )
        self._errors.close()

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read(1 << 16).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def say(self, order: str) -> None:
        # A few bytes into an empty pipe: that never blocks. Of one that has ended `told` tells.
        with contextlib.suppress(OSError, ValueError):
            os.write(self._orders.fileno(), f"{order}\n".encode())

    def let_go(self) -> None:
        self._close()
        # It outlives us while it puts back; nobody is to wait for it or to warn of it.
        self._process.returncode = 0 if self._process.poll() is None else self._process.returncode

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self._orders.close()
