"""One story with real engines: up, status, plan, move, down, with each exit code on the way."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Run

FAKE = ROOT / "tests/fake_engine.py"


@pytest.fixture
def running(spawn: Run, home: Path) -> Iterator[str]:
    """A layout of two fake engines; whatever is left of them at the end is stopped."""
    path = home / "two.toml"
    path.write_text(
        f"""
schema = 1
[defaults]
engine = "command"
command = ["{sys.executable}", "{FAKE}", "--port", "{{port}}"]
slot = "core:0"
env = {{ HF_TOKEN = "hf_secret" }}
restart = "never"
[[instance]]
name = "a"
[ports]
first = 18431
last = 18499
"""
    )
    yield str(path)
    spawn("down", "--all")
    spawn("service", "stop")
    deadline = time.monotonic() + 60
    while (home / "run/slotdeck/control.sock").exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def test_a_layout_goes_up_and_down(spawn: Run, running: str, home: Path) -> None:
    up = spawn("up", running, "--timeout", "60", "--json")
    assert up.returncode == 0, up.stderr
    (one,) = json.loads(up.stdout)["instances"]
    assert (one["name"], one["state"], one["verified"]) == ("a", "ready", True)
    assert "a: ready" in up.stderr

    # It runs and answers, so there is nothing to wait for; and it keeps its port in the plan.
    assert spawn("up", running, "--timeout", "0").returncode == 0
    plan = spawn("plan", running, "--json")
    assert json.loads(plan.stdout)["placements"][0]["port"] == one["port"]
    assert "hf_secret" not in plan.stdout

    status = spawn("status")
    assert status.stdout.startswith("NAME  STATE  PU")
    assert max(map(len, status.stdout.splitlines())) <= 80
    assert spawn("logs", "a").stdout
    assert spawn("logs", "nobody").returncode == 1
    refused = spawn("move", "a", "core:99999")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "not core 99999" in refused.stderr

    down = spawn("down", "a")
    assert (down.returncode, down.stdout) == (0, "stopped: a\n")
    assert json.loads(spawn("status", "--json").stdout)["instances"] == []


def test_an_engine_that_is_never_ready_is_4_and_ctrl_c_is_130(
    spawn: Run, running: str, home: Path
) -> None:
    path = Path(running)
    path.write_text(path.read_text().replace('"{port}"', '"{port}", "--never-ready"'))
    late = spawn("up", running, "--timeout", "0.5")
    assert (late.returncode, late.stdout) == (4, "")
    assert "Not ready within 0.5 s: a" in late.stderr
    child = subprocess.Popen(
        [sys.executable, "-m", "engine.cli.main", "up", running],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert child.stderr
        assert "keeping a" in child.stderr.readline()
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == 130
    assert "Traceback" not in err


def test_what_was_stopped_comes_back_by_undo(spawn: Run, running: str) -> None:
    nothing = spawn("undo")
    assert nothing.returncode == 1
    assert "There is nothing to undo" in nothing.stderr
    assert spawn("up", running, "--timeout", "60").returncode == 0
    assert spawn("down", "a").returncode == 0
    back = spawn("undo", "--timeout", "60")
    assert back.returncode == 0, back.stderr
    assert "takes back: " in back.stderr
    assert "a: ready" in back.stderr
    again = spawn("undo", "--redo")
    assert again.returncode == 0, again.stderr
    assert "again: " in again.stderr
