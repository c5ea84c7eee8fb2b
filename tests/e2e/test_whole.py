"""The whole product as its users meet it: a terminal, the panel, the service, real engines."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.control import AnswerEnd
from tests.bundled_model import bundled_model
from tests.processes import ROOT, Home, a_home, alive, eventually
from tests.tui.terminal import RESTORES, Terminal, mouse

needs_two_pus = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="two instances need a PU each"
)


@pytest.fixture
def home() -> Iterator[Home]:
    with a_home() as one:
        yield one


def slotdeck(home: Home, *words: str, **more: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "engine.cli.main", *words],
        env=home.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **more,
    )


def statuses(home: Home) -> dict[str, dict[str, Any]]:
    answer = slotdeck(home, "status", "--json")
    assert answer.returncode == 0, answer.stderr
    return {one["name"]: one for one in json.loads(answer.stdout)["instances"]}


def layout_file(home: Home, *slots: str) -> Path:
    instances = [{"name": chr(ord("a") + index), "slot": slot} for index, slot in enumerate(slots)]
    file = home.folder / "layout.toml"
    file.write_text(home.layout(*instances).text)
    return file


def panel(home: Home, *words: str, size: tuple[int, int] = (80, 24)) -> Terminal:
    return Terminal("-m", "engine.cli.main", *words, size=size, **home.environment)


def allowed_pus(pid: int) -> set[int]:
    return os.sched_getaffinity(pid)


@needs_two_pus
@pytest.mark.parametrize("end", ["hang up", "kill"])
def test_engines_outlive_the_panel_and_its_terminal(home: Home, end: str) -> None:
    with panel(home, str(layout_file(home, "core:0", "core:1"))) as terminal:
        terminal.until("enter apply")
        terminal.write(b"\r")
        terminal.until(lambda: terminal.text.count("● ready") == 2)
        before = statuses(home)
        if end == "hang up":
            terminal.hang_up()
        else:
            os.kill(terminal.pid, signal.SIGKILL)
        eventually(terminal.ended)
    after = statuses(home)
    assert {name: one["pid"] for name, one in after.items()} == {
        name: one["pid"] for name, one in before.items()
    }
    assert all(one["state"] == "ready" and one["verified"] for one in after.values())
    assert [allowed_pus(after[name]["pid"]) for name in "ab"] == [{0}, {1}]


@needs_two_pus
def test_an_instance_is_dragged_to_another_core_and_runs_there(home: Home) -> None:
    assert slotdeck(home, "up", str(layout_file(home, "core:0"))).returncode == 0
    before = statuses(home)["a"]
    assert allowed_pus(before["pid"]) == {0}
    with panel(home) as terminal:
        terminal.until("● ready")
        terminal.until("core 1")
        x, y = terminal.find("core 0")
        to_x, to_y = terminal.find("core 1")
        # Press, drag and release in one write, as a lagging connection delivers them.
        terminal.write(
            mouse(0, x, y)
            + mouse(32, x + 3, y)
            + mouse(32, to_x, to_y)
            + mouse(0, to_x, to_y, up=True)
        )
        terminal.until("enter apply")
        assert statuses(home)["a"]["pid"] == before["pid"], "an offer must change nothing"
        terminal.write(b"\r")
        moved = eventually(
            lambda: (
                (one := statuses(home)["a"])["slot"] == "core:1"
                and one["state"] == "ready"
                and one["verified"]
                and one
            )
        )
        assert moved["pid"] == before["pid"], "it is carried over, not started again"
        assert allowed_pus(moved["pid"]) == {1}
        terminal.until(
            lambda: any(
                "● ready" in line and "core:1" in line for line in terminal.text.splitlines()
            )
        )
        terminal.write(b"q")
        terminal.until("enter")
        terminal.write(b"\r")
        eventually(lambda: not terminal.read() or terminal.ended())
        eventually(terminal.ended)
        assert all(sequence in terminal.raw for sequence in RESTORES)
        assert b"1 engine keeps running: a (ready" in terminal.raw
    assert alive(moved["pid"])


def test_the_command_line_shows_changes_and_stops_what_runs(home: Home) -> None:
    file = layout_file(home, "auto")
    up = slotdeck(home, "up", str(file), "--json")
    assert up.returncode == 0, up.stderr
    pid = json.loads(up.stdout)["instances"][0]["pid"]
    again = slotdeck(home, "up", str(file))
    assert "keeping a" in again.stderr
    assert statuses(home)["a"]["pid"] == pid
    bench = slotdeck(
        home, "bench", "a", "--requests", "3", "--output-len", "5", "--input-len", "8", "--json"
    )
    assert bench.returncode == 0, bench.stderr
    report = json.loads(bench.stdout)
    assert report["targets"][0]["requests"] == 3
    assert report["targets"][0]["errors"] == 0
    down = slotdeck(home, "down", "--all")
    assert down.returncode == 0, down.stderr
    assert not alive(pid)
    assert home.engines() == []
    assert statuses(home) == {}


def test_the_demonstration_never_takes_the_place_of_engines_that_run(home: Home) -> None:
    assert slotdeck(home, "up", str(layout_file(home, "core:0"))).returncode == 0
    before = statuses(home)
    models = Path(home.environment["XDG_CACHE_HOME"]) / "slotdeck" / "models"
    models.mkdir(parents=True)
    (models / "smollm2-135m").symlink_to(bundled_model())
    demo = slotdeck(home, "demo", "--headless")
    assert demo.returncode == 1
    assert "would take the place of: a" in demo.stderr
    assert statuses(home)["a"]["pid"] == before["a"]["pid"]


@pytest.mark.torch
async def test_an_engine_that_asks_for_a_key_gets_ready_and_answers_a_try(home: Home) -> None:
    key = "sesame-1234"
    file = home.folder / "key.toml"
    file.write_text(
        "schema = 1\n[[instance]]\nname = 'a'\nengine = 'torch'\nslot = 'core:0'\n"
        f"model = '{bundled_model()}'\nenv = {{ SLOTDECK_API_KEY = '{key}' }}\n"
    )
    up = slotdeck(home, "up", str(file))
    assert up.returncode == 0, up.stderr
    client = await home.connect(start=False)
    answer = [piece async for piece in client.ask("a", "Say yes.", max_tokens=4)]
    assert isinstance(answer[-1], AnswerEnd)
    assert answer[-1].output_tokens > 0
    plan = slotdeck(home, "plan", str(file), "--json")
    shown = up.stdout + up.stderr + plan.stdout + slotdeck(home, "logs", "a").stdout
    assert key not in shown + slotdeck(home, "status", "--json").stdout


@pytest.mark.torch
@needs_two_pus
def test_the_demonstration_runs_headless_on_the_real_model(home: Home) -> None:
    models = Path(home.environment["XDG_CACHE_HOME"]) / "slotdeck" / "models"
    models.mkdir(parents=True)
    # Preparing must find it complete and leave it alone.
    (models / "smollm2-135m").symlink_to(bundled_model())
    demo = slotdeck(home, "demo", "--seconds", "3", stdin=subprocess.DEVNULL)
    assert demo.returncode == 0, demo.stderr
    header, *rows = demo.stdout.splitlines()
    assert "tokens/s" in header
    assert "ms" in header
    table = {row.split()[0]: row.split() for row in rows[:2]}
    assert set(table) == {"a", "b"}
    assert table["a"][1] != table["b"][1], "each has a PU of its own"
    assert all(float(row[4]) > 0 for row in table.values())
    assert home.engines() == []
