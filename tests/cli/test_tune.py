"""`slotdeck tune` on a real service, with engines that tell their speed by their batch."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.core.layout import parse_layout
from tests.cli.test_ab import PROGRAM, file, running, slotdeck
from tests.processes import ROOT, Home, a_home, eventually

SHORT = ("--output-len", "3", "--input-len", "2", "--concurrency", "2", "--requests", "4")


@pytest.fixture
def home() -> Iterator[Home]:
    with a_home() as one:
        yield one


def test_what_cannot_be_tuned(home: Home) -> None:
    layout = file(home, "one", {"name": "x", "slot": "core:0"})
    for words, why in (
        (["--final-rounds", "2"], "a t-test needs 3 rounds"),
        (["--output", "/nowhere/x.toml"], "there is no such folder"),
        (["--batch", "a"], "a list looks like 1,4"),
        (["--instance", "y"], "it has: x"),
    ):
        done = slotdeck(home, "tune", layout, *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert why in done.stderr


def test_a_search_ends_with_a_layout_and_leaves_nothing(home: Home) -> None:
    layout = file(home, "one", {"name": "x", "slot": "core:0", "flags": ["--itl-ms", "2"]})
    best, answer = home.folder / "best.toml", home.folder / "tune.json"
    words = ("--final-rounds", "3", "--seed", "1", "--output", str(best), "--json", str(answer))
    done = slotdeck(home, "tune", layout, *words, *SHORT)
    assert done.returncode == 0, done.stderr
    assert "* " in done.stdout
    assert "Searched for throughput: 2 streams" in done.stdout
    told = json.loads(answer.read_text())
    plateau = [one for one in told["candidates"] if one["plateau"]]
    assert plateau
    assert plateau[0]["rounds"] >= 3
    assert plateau[0]["value"] > 0
    text = best.read_text()
    assert text == told["layout"]
    assert text.startswith("# ")
    assert parse_layout(text, name="best.toml").instances[0].name.startswith("x")
    assert running(home) == {}


def test_an_interrupt_puts_back_what_ran(home: Home) -> None:
    before = file(home, "before", {"name": "w", "slot": "core:0"})
    assert slotdeck(home, "up", before).returncode == 0
    layout = file(home, "one", {"name": "x", "slot": "core:0", "flags": ["--itl-ms", "50"]})
    refused = slotdeck(home, "tune", layout, *SHORT)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "what runs: w" in refused.stderr

    said = home.folder / "said"
    with said.open("w") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                PROGRAM,
                "tune",
                layout,
                "--yes",
                *SHORT,
                "--final-rounds",
                "9",
            ],
            env=home.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        eventually(lambda: "round 2" in said.read_text(), within_s=90)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate()
    assert process.returncode == 130
    assert "it was interrupted" in out
    assert "No winner" in out
    assert {name: one["state"] for name, one in running(home).items()} == {"w": "ready"}
    assert Path(layout).exists()
