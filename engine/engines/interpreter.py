"""The Python that an engine's environment is made from, and whether its packages exist for it."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import ControlError, UsageError
from engine.engines.programs import own_environment
from engine.engines.recipes import Recipe


@dataclass(frozen=True, slots=True)
class Interpreter:
    """What must be known of a Python before an environment is made from it."""

    version: str
    release: tuple[int, int]
    machine: str
    include: Path
    """Where its headers are, if they are installed."""


def read_interpreter(python: Path, environment: Mapping[str, str]) -> Interpreter:
    """Raises UsageError where it is no Python that runs."""
    program = (
        "import json, platform, sys, sysconfig; print(json.dumps([platform.python_version(), "
        "*sys.version_info[:2], platform.machine(), platform.python_implementation(), "
        "sysconfig.get_path('include')]))"
    )
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", program],
            env=dict(own_environment(environment)),
            capture_output=True,
            check=False,
            timeout=60,
            cwd="/",
        )
        version, major, minor, machine, kind, include = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise UsageError(
            what=f"{python} cannot be used",
            why=getattr(error, "strerror", None) or "it does not answer as a Python does",
            do="Name an interpreter: --python /usr/bin/python3.12",
        ) from None
    if kind != "CPython":
        raise UsageError(
            what=f"{python} cannot be used",
            why=f"it is {kind}, and the engines' packages are built for CPython",
            do="Name another interpreter: --python /usr/bin/python3.12",
        )
    return Interpreter(version, (major, minor), machine, Path(include))


def check_interpreter(recipe: Recipe, interpreter: Interpreter, python: Path) -> None:
    """Raises ControlError where the engine's packages do not exist for it."""
    oldest, newest = recipe.pythons
    if not oldest <= interpreter.release <= newest:
        words = " to ".join(f"{major}.{minor}" for major, minor in recipe.pythons)
        raise ControlError(
            what=f"{recipe.name} cannot be installed with {python}",
            why=f"its packages are built for Python {words}, and this is {interpreter.version}",
            do=f"Name another interpreter: --python /usr/bin/python{newest[0]}.{newest[1]}",
        )
    if interpreter.machine not in recipe.machines:
        raise ControlError(
            what=f"{recipe.name} cannot be installed on this machine",
            why=f"its packages are built for {' and '.join(recipe.machines)}, and this is "
            f"{interpreter.machine}",
            do="Choose another engine: `slotdeck engines` lists them",
        )
