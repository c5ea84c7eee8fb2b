"""Runs pip for an engine's environment: no shell, no questions, its words kept in a log."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from engine.core.errors import ControlError
from engine.engines.programs import Tick, run_program

_OPTIONS = ("--disable-pip-version-check", "--no-input", "--no-color")
_HAS_NONE = ("No matching distribution found", "ResolutionImpossible")
"""The second where the user's constraints speak of the package too."""


class PipFailed(Exception):
    """pip ended with an error; `said` are its last words."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said

    @property
    def has_none(self) -> bool:
        """Whether it looked and found no such version, rather than not being able to look."""
        return any(words in self.said for words in _HAS_NONE)


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

    def run(
        self,
        words: Sequence[str],
        *,
        temporary: Path,
        tick: Tick,
        more: Mapping[str, str] | None = None,
    ) -> None:
        """Raises PipFailed. Nothing of it goes on when this is left by an exception."""
        environment = {**self.environment, **(more or {}), "TMPDIR": str(temporary)}
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

    def download_source(
        self, wanted: str, into: Path, *, describe: Mapping[str, str], tick: Tick
    ) -> None:
        """Fetch a source package whose checksum is in `wanted`. pip lets it tell about itself,
        with what the environment has; nothing of it is built."""
        self.run(
            (
                *("download", "--no-deps", "--no-build-isolation", "--progress-bar", "off"),
                *("--dest", str(into), wanted),
            ),
            temporary=into,
            tick=tick,
            more=describe,
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


def _last_words(log: Path, begin: int) -> str:
    """pip's errors; without any, its last line."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode("utf-8", "replace").splitlines()
    told = [line.strip() for line in lines if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in told if line.startswith("ERROR: ")]
    return " ".join(errors[-2:] or told[-1:] or ["it said nothing"])[:600]
