"""`slotdeck ab --progress`: what it tells a program, and what it does when told, or left alone."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from engine.cli.ab_rescue import Rescue
from engine.core.comparing.telling import (
    Deciding,
    Ended,
    Failed,
    Judged,
    Measuring,
    Paired,
    Planned,
    PuttingBack,
    Told,
    told_in,
)
from engine.core.errors import ControlError
from engine.core.status import InstanceStatus
from tests.cli.test_ab import PROGRAM, QUICK, SHORT, needs_two_pus, slotdeck
from tests.processes import ROOT, WITHIN_S, Home, a_home

Kind = TypeVar("Kind")
FEW = ("--pairs", "6", "--aa-pairs", "0", *SHORT)


@pytest.fixture
def home() -> Iterator[Home]:
    with a_home() as one:
        yield one


class Watched:
    """A comparison as a child, told and telling line by line."""

    def __init__(self, home: Home, *words: str) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "ab", *words, "--progress"],
            env=home.environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.told: list[Told] = []

    def say(self, order: str) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(f"{order}\n".encode())
        self.child.stdin.flush()

    def until(self, kind: type[Kind]) -> Kind:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            told = told_in(line)
            assert told is not None, line
            self.told.append(told)
            if isinstance(told, kind):
                return told
        assert self.child.stderr is not None
        raise AssertionError(
            f"{kind.__name__} never came: {self.told}; {self.child.stderr.read()!r}"
        )

    def all(self, kind: type[Kind]) -> list[Kind]:
        return [one for one in self.told if isinstance(one, kind)]


@contextmanager
def watched(home: Home, *words: str) -> Iterator[Watched]:
    one = Watched(home, *words)
    with one.child:
        try:
            yield one
        finally:
            one.child.kill()


def now(home: Home) -> dict[str, InstanceStatus]:
    async def ask() -> dict[str, InstanceStatus]:
        snapshot = await (await home.connect(start=False)).snapshot()
        return {one.name: one for one in snapshot.instances}

    return asyncio.run(ask())


def up(home: Home, *instances: dict[str, Any]) -> dict[str, InstanceStatus]:
    async def ask() -> None:
        await home.up(await home.connect(), *instances)

    asyncio.run(ask())
    return now(home)


def rescue(home: Home) -> Path:
    return home.paths.state / "before-ab.toml"


X = {"name": "x", "slot": "core:0", "flags": QUICK}


@needs_two_pus
def test_one_place_against_another_and_one_is_kept(home: Home) -> None:
    was = up(home, X)["x"]
    with watched(home, "--split", "x") as one:
        assert "x cannot be split" in one.until(Failed).what
    with watched(home, "--move", "x", "core:1", *FEW, "--max-time", "600") as one:
        planned = one.until(Planned)
        assert planned.comparisons == (("x on core:0", "x on core:1"),)
        assert (planned.stops, planned.most_s) == (("x",), 600)
        assert "requests in flight" in planned.losses[0]
        assert now(home)["x"].pid == was.pid, "nothing is done before it is told to begin"
        one.say("start")
        deciding = one.until(Deciding)
        assert deciding.why
        pairs = one.all(Paired)
        assert {pair.order for pair in pairs} == {"AB", "BA"}
        assert {block.arm for block in one.all(Measuring)} == {"a", "b"}
        judged = one.all(Judged)[0]
        assert {row.unit for row in judged.metrics} >= {"ms", "tokens/s", "tokens/s/core"}
        saved = json.loads(Path(judged.saved).read_text())
        assert saved["sentence"] == judged.sentence
        assert len(saved["blocks"]["pairs"]) == judged.pairs == len(pairs)
        with (
            pytest.raises(ControlError, match="Another comparison runs"),
            Rescue(home.paths).held("another"),
        ):
            pass
        one.say("keep x on core:1")
        assert one.until(Ended).kept == "x on core:1"
        assert one.child.wait(WITHIN_S) == 0
    after = now(home)
    assert set(after) == {"x"}
    assert (after["x"].slot, after["x"].port) == ("core:1", was.port)
    assert not rescue(home).exists()


@needs_two_pus
def test_a_watcher_that_is_gone_has_all_put_back(home: Home) -> None:
    was = up(home, X)["x"]
    with watched(home, "--move", "x", "core:1", *FEW, "--pairs", "200") as one:
        one.until(Planned)
        one.say("start")
        one.until(Paired)
        assert 'slot = "core:0"' in rescue(home).read_text()
        assert rescue(home).stat().st_mode & 0o777 == 0o600
        assert one.child.stdin is not None
        one.child.stdin.close()
        ended = one.until(Ended)
        assert (ended.kept, ended.interrupted, ended.different) == (None, True, ())
        assert one.all(PuttingBack)[0].names == ("x",)
        judged = one.all(Judged)[0]
        assert json.loads(Path(judged.saved).read_text())["stop"] == "it was interrupted"
        assert one.child.wait(WITHIN_S) == 130
    after = now(home)["x"]
    assert (after.slot, after.port, after.pus) == (was.slot, was.port, was.pus)
    assert after.pid != was.pid
    assert not rescue(home).exists()


@needs_two_pus
def test_what_was_killed_leaves_a_file_that_brings_all_back(home: Home) -> None:
    was = up(home, X)["x"]
    with watched(home, "--move", "x", "core:1", *FEW) as one:
        one.until(Planned)
        one.say("start")
        one.until(Paired)
        one.child.kill()
    assert slotdeck(home, "up", str(rescue(home))).returncode == 0
    after = now(home)
    assert set(after) == {"x"}
    assert (after["x"].slot, after["x"].port) == (was.slot, was.port)
    left = Rescue(home.paths)
    with left.held("the next one"):
        assert left.was_cut_off
        assert 'slot = "core:0"' in left.cut_off.read_text(), "nothing of it is lost"
        left.done()
    assert not rescue(home).exists()
