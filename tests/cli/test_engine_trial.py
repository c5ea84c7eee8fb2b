"""The trial of `slotdeck engines check`: an engine is started, asked, and leaves nothing."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.cli.engine_trial import run_trial
from engine.core.errors import ControlError, NotReadyInTime
from engine.core.layout import parse_layout
from engine.host.machine import read_machine
from engine.host.root import HostRoot
from engine.service.orders import Planned, Surroundings
from engine.service.planning import plan_layout
from tests.processes import FAKE_ENGINE, alive, free_ports


@pytest.fixture
def planned(home: Path) -> Iterator[Callable[..., Planned]]:
    """The fake engine on this machine's last PU, with flags."""

    def plan(*flags: str) -> Planned:
        (port,) = free_ports(1)
        command = [sys.executable, "-S", str(FAKE_ENGINE), "--port", "{port}", *flags]
        pu = max(os.sched_getaffinity(0))
        text = (
            'schema = 1\nname = "check"\n[[instance]]\nname = "check"\nengine = "command"\n'
            f'slot = "pu:{pu}"\nport = {port}\ncommand = {json.dumps(command)}\n'
            "stop_grace_s = 2\n"
        )
        layout = parse_layout(text, name="check")
        around = Surroundings({"PATH": os.defpath, "HOME": str(home)}, home)
        return plan_layout(read_machine(HostRoot()), layout, around, base="/").planned[0]

    yield plan
    assert not list(Path("/tmp").glob(f"slotdeck-check-*{os.getpid()}"))


def engines_left(planned: Planned) -> list[int]:
    port = str(planned.placement.port).encode()
    found = []
    for one in Path("/proc").iterdir():
        if one.name.isdigit() and alive(int(one.name)):
            try:
                words = (one / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(FAKE_ENGINE).encode() in words and port in words:
                found.append(int(one.name))
    return found


def test_a_trial_starts_asks_and_stops(planned: Callable[..., Planned]) -> None:
    plan = planned()
    told: list[str] = []
    trial = asyncio.run(run_trial(plan, timeout_s=30, tell=told.append))
    assert trial.text
    assert trial.pus == str(max(os.sched_getaffinity(0)))
    assert "numactl" in trial.shell
    assert told[-1] == "asking one token"
    assert engines_left(plan) == []


def test_a_trial_tells_the_log_of_an_engine_that_ends(planned: Callable[..., Planned]) -> None:
    plan = planned("--die-on-start", "no such kernel")
    with pytest.raises(ControlError) as caught:
        asyncio.run(run_trial(plan, timeout_s=30, tell=lambda told: None))
    assert "ended before it was ready" in caught.value.what
    assert "no such kernel" in caught.value.why
    assert engines_left(plan) == []


def test_a_trial_ends_an_engine_that_is_never_ready(planned: Callable[..., Planned]) -> None:
    plan = planned("--never-ready", "--ignore-sigterm")
    with pytest.raises(NotReadyInTime, match="was not ready within 1 s"):
        asyncio.run(run_trial(plan, timeout_s=1, tell=lambda told: None))
    assert engines_left(plan) == []
