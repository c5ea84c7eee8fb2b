"""The C++ compiler of this machine, and whether it has what an engine's extension needs."""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import ControlError
from engine.engines.programs import Tick, own_environment, run_program

_GCC = "g++"
_OLDEST = (9,)
"""PyTorch's headers are C++17 that older ones do not know."""
_DEBIAN = "on Debian and Ubuntu: sudo apt install"


class CompileFailed(Exception):
    """The compiler ended with an error; `said` are the first of its own words."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


@dataclass(frozen=True, slots=True)
class Compiler:
    """g++, which says everything into a log."""

    program: str
    version: tuple[int, ...]
    environment: Mapping[str, str]

    def __str__(self) -> str:
        return f"{_GCC} {'.'.join(map(str, self.version))}"

    def run(
        self, words: Sequence[str], log: Path, *, tick: Tick, keep_open: tuple[int, ...] = ()
    ) -> None:
        """Raises CompileFailed. Nothing of it goes on when this is left by an exception."""
        with log.open("ab") as said:
            begin = said.tell()
            run_program(
                (self.program, *words),
                # Its errors are looked for by their English word.
                environment={**self.environment, "LC_ALL": "C"},
                output=said.fileno(),
                tick=tick,
                keep_open=keep_open,
                failed=lambda: CompileFailed(_errors(log, begin)),
            )

    def finds(self, library: str) -> bool:
        """Whether it would link with a library of this file name."""
        return "/" in _output((self.program, f"-print-file-name={library}"), self.environment)


def find_compiler(environment: Mapping[str, str], *, why: str) -> Compiler:
    """Raises ControlError where there is none, or too old a one."""
    own = own_environment(environment)
    program = shutil.which(_GCC, path=own.get("PATH"))
    if program is None:
        raise ControlError(
            what="There is no C++ compiler",
            why=f"{why}, and there is no {_GCC} on your PATH",
            do=f"Install it ({_DEBIAN} g++) and run the same again",
        )
    told = _output((program, "-dumpfullversion", "-dumpversion"), own)
    version = tuple(map(int, re.findall(r"\d+", told.partition("\n")[0])[:3]))
    if version < _OLDEST:
        raise ControlError(
            what="The C++ compiler is too old",
            why=f"{why}, which takes {_GCC} {_OLDEST[0]} or newer, and {program} is {told or '?'}",
            do="Install a newer one, or put it first on your PATH",
        )
    return Compiler(program, version, own)


def require(compiler: Compiler, library: str, header: Path, *, why: str) -> None:
    """Raises ControlError where a library is not here, or Python has no headers."""
    if not header.is_file():
        name = header.parent.name  # python3.11, as the distributions call it
        raise ControlError(
            what="Python's headers are not here",
            why=f"{why}, and there is no {header}",
            do=f"Install them ({_DEBIAN} {name}-dev), or name a Python that has them: "
            "--python FILE",
        )
    if not compiler.finds(library):
        raise ControlError(
            what=f"The library {library} is not here",
            why=f"{why}, and {compiler.program} does not find it",
            do=f"Install it ({_DEBIAN} {library.partition('.')[0]}1) and run the same again",
        )


def _output(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            argv, env=dict(environment), capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _errors(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode("utf-8", "replace").splitlines()
    told = [line.strip() for line in lines if line.strip()]
    errors = [line for line in told if re.search(r"\berror:|Killed|undefined reference", line)]
    # The first one tells; what follows often comes of it.
    return " ".join(errors[:1] or told[-1:] or ["it said nothing"])[:600]
