"""`slotdeck tune` on the real torch worker: every candidate is started, loaded and stopped."""

import importlib.util
import json

import pytest

from engine.core.layout import parse_layout
from tests.engines.real import bring_up, slotdeck, statuses, take_down
from tests.processes import Home

LAYOUT = """schema = 1
name = "to be tuned"
[[instance]]
name = "m"
engine = "torch"
model = "bundled:smollm2-135m"
weight_only = "int8"
restart = "never"
"""
LOAD = ("--concurrency", "2", "--requests", "4", "--input-len", "16", "--output-len", "8")


def test_a_search_on_the_torch_worker(home: Home) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed beside slotdeck")
    layout, best, told = (home.folder / name for name in ("m.toml", "best.toml", "tune.json"))
    layout.write_text(LAYOUT)
    files = ("--output", str(best), "--json", str(told))
    done = slotdeck(home, "tune", str(layout), *LOAD, *files, "--final-rounds", "3", "--seed", "1")
    assert done.returncode == 0, done.stderr
    assert statuses(home) == {}
    assert home.engines() == []

    answer = json.loads(told.read_text())
    assert (answer["ended"], answer["unfinished_round"]) == ("all rounds are done", {})
    finalists = [one for one in answer["candidates"] if one["against_best"] is not None]
    assert all(one["value"] > 1 for one in finalists), finalists
    plateau = [one for one in finalists if one["plateau"]]
    assert plateau
    assert all(one["rounds"] >= 3 for one in plateau)

    made = parse_layout(best.read_text(), name="best.toml")
    assert {one.weight_only for one in made.instances} == {"int8"}
    found = bring_up(home, best)
    ports = [one["port"] for one in found.values()]
    take_down(home, [one["pid"] for one in found.values()], ports)
