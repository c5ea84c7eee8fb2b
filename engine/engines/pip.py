"""Runs pip for an engine's environment: no shell, no questions, its words kept in a log."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from engine.core.errors import ControlError
from engine.host.process import read_all
from engine.host.root import HostRoot

_NOT_PASSED_ON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "PIP_TARGET")
"""Variables that would lead an environment's Python or pip elsewhere."""
_OPTIONS = ("--disable-pip-version-check", "--no-input", "--no-color")
_TICK_S = 0.5
_END_WITHIN_S = 10.0
NO_SUCH = "No matching distribution found"

Tick = Callable[[], None]


class PipFailed(Exception):
    """pip ended with an error; `said` are its last words."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said

    @property
    def has_none(self) -> bool:
        """Whether it looked and found no such version, rather than not being able to look."""
        return NO_SUCH in self.said


def own_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The user's environment without what would lead another Python astray."""
    return {name: value for name, value in environment.items() if name not in _NOT_PASSED_ON}


@dataclass(frozen=True, slots=True)
class Pip:
    """pip for one environment, from its own Python or from slotdeck's."""

    words: tuple[str, ...]
    """The program and what makes it work on that environment."""
    environment: Mapping[str, str]
    log: Path
    """Everything that it says."""
    keep_open: tuple[int, ...] = ()
    """Files that it holds open as long as it lives: the lock of the install."""

    def run(self, words: Sequence[str], *, temporary: Path, tick: Tick) -> None:
        """Raises PipFailed. Nothing of it goes on when this is left by an exception."""
        environment = {**self.environment, "TMPDIR": str(temporary)}
        with self.log.open("ab") as log:
            begin = log.tell()
            run_program(
                (*self.words, *_OPTIONS, *words),
                environment=environment,
                output=log.fileno(),
                tick=tick,
                keep_open=self.keep_open,
                failed=lambda: PipFailed(_last_words(self.log, begin)),
            )

    def download(
        self, wanted: Iterable[str], into: Path, source: Iterable[str], *, tick: Tick
    ) -> None:
        """Fetch wheels, and only wheels: a source package would run its own code."""
        self.run(
            (
                *("download", "--no-deps", "--only-binary", ":all:", "--progress-bar", "off"),
                *("--dest", str(into), *source, *wanted),
            ),
            temporary=into,
            tick=tick,
        )

    def install(self, wanted: Iterable[str], wheels: Path, *, temporary: Path, tick: Tick) -> None:
        """Unpack wheels that were fetched before; asks no index."""
        self.run(
            (
                *("install", "--no-deps", "--no-index", "--only-binary", ":all:"),
                *("--find-links", str(wheels), "--no-warn-script-location"),
                *("--progress-bar", "off", *wanted),
            ),
            temporary=temporary,
            tick=tick,
        )


def pip_for(
    python: Path,
    environment: Mapping[str, str],
    *,
    log: Path,
    tick: Tick,
    keep_open: tuple[int, ...] = (),
) -> Pip:
    """slotdeck's own pip on that environment, or one that Python itself brings along.

    Raises ControlError where there is neither.
    """
    if find_spec("pip") is not None:
        words: tuple[str, ...] = (sys.executable, "-m", "pip", "--python", str(python))
        return Pip(words, environment, log, keep_open)
    with log.open("ab") as said:
        run_program(
            (str(python), "-m", "ensurepip"),
            environment=environment,
            output=said.fileno(),
            tick=tick,
            keep_open=keep_open,
            failed=lambda: ControlError(
                what="There is no pip to install with",
                why=f"neither {sys.executable} nor {python} has one",
                do="Install it (python3-pip or python3-venv on Debian and Ubuntu)",
            ),
        )
    return Pip((str(python), "-m", "pip"), environment, log, keep_open)


def run_program(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    output: int,
    tick: Tick,
    failed: Callable[[], Exception],
    keep_open: tuple[int, ...] = (),
) -> None:
    """Run a program to its end, with `tick` called now and then; it ends with us."""
    program = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=dict(environment),
        cwd="/",
        pass_fds=keep_open,
        start_new_session=True,
    )
    try:
        while program.poll() is None:
            tick()
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(_TICK_S)
    except BaseException:
        _end(program)
        raise
    if program.returncode != 0:
        raise failed()


def _end(program: "subprocess.Popen[bytes]") -> None:
    """Its whole group: pip works in a child of its own, which would go on writing."""
    if program.returncode is not None:
        return
    group = program.pid
    with contextlib.suppress(ProcessLookupError):  # interrupted at the very end of its wait
        # Until it is waited for, its number cannot belong to anybody else.
        os.killpg(group, signal.SIGTERM)
        deadline = time.monotonic() + _END_WITHIN_S
        while _members(group) and time.monotonic() < deadline:
            time.sleep(0.02)
        while _members(group):
            os.killpg(group, signal.SIGKILL)
            time.sleep(0.02)
    program.wait()


def _members(group: int) -> bool:
    return any(one.group == group and one.alive for one in read_all(HostRoot()).values())


def _last_words(log: Path, begin: int) -> str:
    """pip's errors; without any, its last line."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode("utf-8", "replace").splitlines()
    told = [line.strip() for line in lines if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in told if line.startswith("ERROR: ")]
    return " ".join(errors[-2:] or told[-1:] or ["it said nothing"])[:600]
