"""Fake engines as targets of a benchmark."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.bench import Target
from engine.drivers import openai_api

FAKE = Path(__file__).parents[1] / "fake_openai.py"

Fake = Callable[..., Target]


@contextmanager
def starting_fakes() -> Iterator[Fake]:
    """Starts a fake engine with these flags and gives it as a target."""
    running: list[subprocess.Popen[str]] = []

    def start(*flags: str) -> Target:
        process = subprocess.Popen(
            [sys.executable, str(FAKE), *flags], stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        return Target(f"t{len(running)}", url)

    try:
        yield start
    finally:
        for process in running:
            process.kill()
            process.communicate()


async def log(target: Target) -> list[dict[str, Any]]:
    """Every generating request that it saw."""
    response = await openai_api.get(f"{target.url}/log", timeout_s=5)
    requests: list[dict[str, Any]] = response.json()["requests"]
    return requests
