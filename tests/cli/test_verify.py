"""`slotdeck verify`: words and JSON of what differs, and its exit codes."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from engine.cli.verify import verify_json, verify_text
from engine.control import Difference, Verification, Verified
from tests.cli.conftest import ROOT, Said
from tests.processes import Home, a_home
from tests.service.asking import send_off

OFF = Difference("affinity", "PU 0-3", "2 threads may run on PU 7", "`slotdeck verify b --repair`")
FOUND = Verification(
    (
        Verified("a", verified=True),
        Verified("b", verified=False, differences=(OFF,), repaired=("1 thread moved",)),
    )
)


def test_each_difference_says_asked_got_and_do() -> None:
    assert verify_text(FOUND, 60).splitlines() == [
        "a: as asked",
        "b: repair: 1 thread moved",
        "b: differs",
        "  affinity",
        "    asked: PU 0-3",
        "    got:   2 threads may run on PU 7",
        "    do:    `slotdeck verify b --repair`",
    ]
    assert max(map(len, verify_text(FOUND, 30).splitlines())) <= 30


def test_verify_json_has_the_keys_of_the_contract() -> None:
    said = json.loads(json.dumps(verify_json(FOUND)))
    assert said["schema"] == "slotdeck.verify/1"
    assert [set(one) for one in said["instances"]] == [{"name", "verified", "differences"}] * 2
    assert said["instances"][1]["differences"] == [
        {
            "what": "affinity",
            "asked": "PU 0-3",
            "got": "2 threads may run on PU 7",
            "do": "`slotdeck verify b --repair`",
        }
    ]
    told = verify_json(FOUND, repaired=True)["instances"][1]
    assert list(told["repaired"]) == ["1 thread moved"]


def test_with_nothing_running_there_is_nothing_to_compare(say: Callable[..., Said]) -> None:
    said = say("verify")
    assert said.code == 0
    assert said.out.startswith("No instance is ready")
    assert json.loads(say("verify", "--json").out) == {
        "schema": "slotdeck.verify/1",
        "instances": [],
    }
    missing = say("verify", "nobody")
    assert missing.code == 1
    assert "There is no instance 'nobody'" in missing.err


@pytest.fixture
def user() -> Iterator[Home]:
    with a_home() as one:
        yield one


def slotdeck(user: Home, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "engine.cli.main", *words],
        env=user.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs somewhere else to go")
def test_found_repaired_and_moved_live_from_the_command_line(user: Home) -> None:
    file = user.folder / "layout.toml"
    file.write_text(user.layout({"name": "a", "slot": "core:0"}).text)
    assert slotdeck(user, "up", str(file)).returncode == 0
    assert slotdeck(user, "verify").stdout == "a: as asked\n"

    async def leave() -> None:
        client = await user.connect(start=False)
        await send_off((await client.snapshot()).instances[0], cpus=[1])

    asyncio.run(leave())
    found = slotdeck(user, "verify", "a", "--json")
    assert found.returncode == 1
    (one,) = json.loads(found.stdout)["instances"]
    assert (one["name"], one["verified"]) == ("a", False)
    assert one["differences"][0]["got"] == "1 thread may run on PU 1"
    assert "1 thread may run on PU 1, asked PU 0" in slotdeck(user, "status").stdout
    repaired = slotdeck(user, "verify", "--repair")
    assert repaired.returncode == 0
    assert repaired.stdout.splitlines()[-1] == "a: as asked"

    pids = user.engines()
    moved = slotdeck(user, "move", "a", "core:1")
    assert moved.returncode == 0, moved.stderr
    assert "a: moves live, requests go on" in moved.stderr
    assert "a: moved to core:1: 1 thread and 0 pages" in moved.stderr
    assert user.engines() == pids
    assert os.sched_getaffinity(pids[0]) == {1}
    again = slotdeck(user, "move", "a", "core:0", "--restart")
    assert again.returncode == 0, again.stderr
    assert "a: moves by a restart: as asked" in again.stderr
    assert user.engines() != pids
