"""`slotdeck tune` on a real service, with engines that tell their speed by their batch."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.bench.tune_log import TuneLog, read_log
from engine.core.layout import parse_layout
from tests.cli.test_ab import file, interrupted, running, slotdeck
from tests.processes import Home, a_home

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


def test_an_interrupt_puts_back_what_ran_and_the_search_can_go_on(home: Home) -> None:
    before = file(home, "before", {"name": "w", "slot": "core:0"})
    assert slotdeck(home, "up", before).returncode == 0
    layout = file(home, "one", {"name": "x", "slot": "core:0", "flags": ["--itl-ms", "50"]})
    refused = slotdeck(home, "tune", layout, *SHORT)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "what runs: w" in refused.stderr

    words = ("--yes", *SHORT, "--final-rounds", "9", "--seed", "5")
    done = interrupted(home, "tune", layout, *words, once="round 1: ")
    assert done.returncode == 130, done.stderr
    assert "it was interrupted" in done.stdout
    assert "No winner" in done.stdout
    assert {name: one["state"] for name, one in running(home).items()} == {"w": "ready"}

    (line,) = re.findall(r"to go on where it ended: slotdeck tune (.*)", done.stderr)
    told = line.split()
    assert told[:2] == [layout, "--resume"]
    log = Path(told[2])
    assert log.stat().st_mode & 0o077 == 0
    kept = read_log(log)
    assert (kept.question["seed"], kept.question["final_rounds"]) == (5, 9)
    other = slotdeck(home, "tune", *told, "--concurrency", "3")
    assert (other.returncode, other.stdout) == (2, "")
    assert "was begun with 2" in other.stderr

    # As if it had been ended when every figure was there, however many candidates have a place.
    names, writing = kept.question["candidates"], TuneLog(log)
    assert isinstance(names, list)
    for number in range(1, 30):
        writing.begin(number)
        for place, name in enumerate(names):
            writing.measured(number, name, 10.0 + place + number / 100)
    ended = slotdeck(home, "tune", *told, "--yes", "--json")
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    assert answer["rounds"] >= 9
    assert answer["ended"] == "all rounds are done"
    assert not re.search(r"round \d+: ", ended.stderr), "nothing was measured again"

    Path(layout).write_text(Path(layout).read_text() + "# another\n")
    changed = slotdeck(home, "tune", *told, "--yes")
    assert (changed.returncode, changed.stdout) == (2, "")
    assert "the layout has changed since" in changed.stderr
