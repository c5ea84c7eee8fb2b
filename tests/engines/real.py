"""What tests of real engines share: a user with the installed engines, a layout, questions.

They run only with SLOTDECK_ENGINES=1, each with what `slotdeck engines install` has put into
your own data folder. A start takes half a minute, and minutes on a busy machine.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine.control import AnswerEnd, AnswerPiece
from engine.engines.environments import python_of
from engine.host.paths import Paths
from engine.host.ports import listening_ports
from engine.host.process import family, read_all, thread_affinities
from engine.host.root import HostRoot
from tests.processes import ROOT, Home, alive, free_ports

WITHIN_S = 900
OWN = dict(os.environ)  # noqa: TID251 - where this user's engines are
DATA = Paths.of(OWN).data
PUS = sorted(os.sched_getaffinity(0))


def installed_python(engine: str) -> Path:
    python = python_of(engine, DATA)
    if python is None:
        pytest.skip(f"{engine} is not installed: slotdeck engines install {engine}")
    return python


def slotdeck(home: Home, *words: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli.main", *words],
        env=home.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
    )
    sys.stderr.write(done.stderr)
    return done


def layout_of(
    home: Home, engine: str, pus: list[int], *, args: str = "", **keys: str
) -> tuple[Path, list[int]]:
    """An instance on each of these PUs."""
    ports = free_ports(len(pus))
    settled = {
        "engine": engine,
        "python": str(installed_python(engine)),
        "model": "bundled:smollm2-135m",
        "restart": "never",
        **keys,
    }
    lines = [
        'schema = 1\nname = "real"\n[defaults]',
        *(f"{key} = {json.dumps(value)}" for key, value in settled.items()),
        f"reserve_cores = 0\nargs = {{ max-model-len = 512, max-num-seqs = 2{args} }}",
    ]
    for index, (pu, port) in enumerate(zip(pus, ports, strict=True)):
        lines.append(f'[[instance]]\nname = "i{index}"\nslot = "pu:{pu}"\nport = {port}')
    file = home.folder / "real.toml"
    file.write_text("\n".join(lines) + "\n")
    return file, ports


def statuses(home: Home) -> dict[str, dict[str, Any]]:
    answer = slotdeck(home, "status", "--json")
    assert answer.returncode == 0, answer.stderr
    return {one["name"]: one for one in json.loads(answer.stdout)["instances"]}


def bring_up(home: Home, file: Path) -> dict[str, dict[str, Any]]:
    began = time.monotonic()
    up = slotdeck(home, "up", str(file), "--timeout", str(WITHIN_S - 60), "--json")
    assert up.returncode == 0, up.stderr
    sys.stderr.write(f"ready after {time.monotonic() - began:.1f} s\n")
    found = statuses(home)
    sys.stderr.write(f"{[(one['rss_bytes'] or 0) >> 20 for one in found.values()]} MiB\n")
    assert {one["state"] for one in found.values()} == {"ready"}
    assert all(one["verified"] for one in found.values()), found
    return found


def threads_of(pid: int) -> set[str]:
    """Where each thread of an engine and of all its children may run."""
    root = HostRoot()
    return {
        str(affinity)
        for member in family(read_all(root), [pid])
        for affinity in thread_affinities(root, member).values()
    }


async def answer_of(home: Home, name: str, max_tokens: int = 16) -> tuple[str, AnswerEnd]:
    client = await home.connect(start=False)
    pieces = [piece async for piece in client.ask(name, "Say hello.", max_tokens=max_tokens)]
    end = pieces[-1]
    assert isinstance(end, AnswerEnd)
    sys.stderr.write(f"{end.output_tokens} tokens, {end.output_tokens_per_s} tokens/s\n")
    return "".join(piece.text for piece in pieces if isinstance(piece, AnswerPiece)), end


def take_down(home: Home, pids: list[int], ports: list[int]) -> None:
    members = [one for pid in pids for one in family(read_all(HostRoot()), [pid])]
    began = time.monotonic()
    down = slotdeck(home, "down", "--all")
    assert down.returncode == 0, down.stderr
    sys.stderr.write(f"down after {time.monotonic() - began:.1f} s\n")
    assert not [pid for pid in members if alive(pid)]
    assert home.engines() == []
    assert not listening_ports(HostRoot()) & set(ports)
    assert statuses(home) == {}
