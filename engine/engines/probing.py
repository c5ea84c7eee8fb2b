"""Asks an engine's Python what it can do: imports, versions, what it sees of the processor."""

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.core.errors import ControlError
from engine.engines.programs import own_environment

PROBE = Path(__file__).with_name("probe.py")


def probe(
    python: Path,
    modules: Sequence[str],
    environment: Mapping[str, str],
    *,
    tick: Callable[[], None],
) -> dict[str, Any]:
    """What `probe.py` finds out inside an engine's Python."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as answer:
        try:
            _run_probe(python, modules, environment, writing, tick)
        finally:
            os.close(writing)
        lines = answer.read().splitlines()
    try:
        found: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        raise _no_answer(python) from None
    return found


def _run_probe(
    python: Path,
    modules: Sequence[str],
    environment: Mapping[str, str],
    output: int,
    tick: Callable[[], None],
) -> None:
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path of ours
        program = subprocess.Popen(
            [str(python), "-I", str(PROBE), *modules],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=nowhere,
            env={**own_environment(environment), "CUDA_VISIBLE_DEVICES": ""},
            cwd="/",
        )
    try:
        while program.poll() is None:
            tick()
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(0.2)
    except BaseException:
        program.kill()
        program.wait()
        raise
    if program.returncode != 0:
        raise _no_answer(python)


def _no_answer(python: Path) -> ControlError:
    return ControlError(
        what=f"{python} did not say what it can do",
        why="it ended while it imported the engine's modules",
        do=f"Try it by hand: {python} -I {PROBE} torch",
    )


def import_errors(found: Mapping[str, Any]) -> list[str]:
    """What did not import, in words."""
    return [
        f"import {one['module']}: {one['error']}" for one in found["imports"] if "error" in one
    ]
