"""The doctor's screen on a real process that speaks `slotdeck.doctor/1`, here and over ssh."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine.checkup import NotChecked, checkup
from engine.reach import Reach
from tests.processes import alive
from tests.tui.pilots import NARROW, WIDE, panel, text, toasts, until
from tests.tui.scripted_control import ScriptedControl
from tui.screens.doctor import DoctorScreen

SIZES = pytest.mark.parametrize("size", [NARROW, WIDE], ids=["80x24", "200x60"])
CHECKS: list[dict[str, Any]] = [
    {"id": "cores", "state": "ok", "found": "all 8 cores may be used", "evidence": []},
    {
        "id": "governor",
        "state": "advice",
        "found": "the lowest clock is 0.8 GHz",
        "evidence": [{"path": "/sys/devices/system/cpu/cpu0/cpufreq/x", "value": 800000}],
        "why": "cores that sleep answer later",
        "do": "slotdeck doctor --fix governor",
        "undo": "slotdeck doctor --undo governor",
        "needs": ["root"],
    },
    {
        "id": "rebar",
        "state": "problem",
        "found": "GPU 0 shows 256 MiB of its memory",
        "evidence": [{"path": "/sys/bus/pci/devices/0000:03:00.0/resource", "value": None}],
        "why": "weights go through a small window",
        "do": "turn Resizable BAR on in the firmware",
        "undo": None,
        "needs": "a restart",
        "later": "keys of later versions are no mistake",
    },
    {"id": "clocks", "state": "unknown", "found": "no counters", "why": "a guest has none"},
]


def program(path: Path, body: str) -> Path:
    path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def doctor(tmp_path: Path) -> Path:
    """A slotdeck that answers what is in a file, counts, and ends as one that found problems."""
    (tmp_path / "answer").write_text(json.dumps({"schema": "slotdeck.doctor/1", "checks": CHECKS}))
    return program(
        tmp_path / "slotdeck",
        f"open({str(tmp_path / 'asked')!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        f"print(open({str(tmp_path / 'answer')!r}).read())\nsys.exit(1)",
    )


@SIZES
async def test_findings_the_gravest_first(doctor: Path, size: tuple[int, int]) -> None:
    look = partial(checkup, Reach(), {}, here=(str(doctor),))
    async with panel(ScriptedControl(), size, checkup=look) as (app, pilot):
        await pilot.press("D")
        await until(pilot, lambda: "1 problem, 1 advice, 1 unknown, 1 ok" in text(app), 60.0)
        order = [text(app).index(words) for words in ("✗ problem", "◌ advice")]
        assert order == sorted(order)
        for words in ("a restart", "go through a small window", "resource is not told"):
            assert words in text(app)
        await pilot.press("f")
        await until(pilot, lambda: "only problems" in text(app))
        assert "governor" not in text(app)
        await pilot.press("f")
        await until(pilot, lambda: "problems and advice" in text(app))
        await pilot.press("slash", *"root", "enter")
        await until(pilot, lambda: "rebar" not in text(app))
        await pilot.press("y")
        await until(pilot, lambda: "slotdeck doctor --fix governor" in app.clipboard)
        await pilot.press("escape")  # the words
        await until(pilot, lambda: "rebar" in text(app))
        changed = {"schema": "slotdeck.doctor/1", "checks": CHECKS[:1]}
        (doctor.parent / "answer").write_text(json.dumps(changed))
        await pilot.press("a")
        await until(pilot, lambda: "doctor: 1 ok" in text(app), 60.0)
        assert (doctor.parent / "asked").read_text() == "doctor --json\n" * 2
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.board)


async def test_the_real_doctor_is_understood(tmp_path: Path) -> None:
    checks = await checkup(Reach(), {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
    assert {"instructions", "numa-nodes"} <= {one.id for one in checks}


async def test_leaving_ends_a_check_that_waits(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    slow = program(
        tmp_path / "slow",
        f"open('{started}.new', 'w').write(str(os.getpid()))\n"
        f"os.rename('{started}.new', '{started}')\ntime.sleep(600)",
    )
    look = partial(checkup, Reach(), {}, here=(str(slow),))
    async with panel(ScriptedControl(), checkup=look) as (app, pilot):
        await pilot.press("D")
        await until(pilot, started.exists, 60.0)
        assert "having this machine checked" in text(app)  # and the panel goes on meanwhile
        await pilot.press("escape")
        await until(pilot, lambda: not alive(int(started.read_text())), 60.0)


async def test_the_far_machine_is_the_one_that_is_checked(doctor: Path, tmp_path: Path) -> None:
    ssh = program(
        tmp_path / "ssh",
        f"open({str(tmp_path / 'by-ssh')!r}, 'w').write(' '.join(sys.argv[1:]))\n"
        f"os.execv({str(doctor)!r}, ['slotdeck', *sys.argv[-1].split()[1:]])",
    )
    reach = Reach("me@there", ssh=str(ssh))
    checks = await checkup(reach, {})
    assert [one.id for one in checks] == ["cores", "governor", "rebar", "clocks"]
    assert (tmp_path / "by-ssh").read_text().endswith("-- me@there slotdeck doctor --json")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("print('Welcome!')", "its answer cannot be read"),
        ("sys.stderr.write('no way\\n in\\n'); sys.exit(255)", "no way; in"),
        ('print(\'{"schema": "slotdeck.doctor/9", "checks": []}\')', "answers slotdeck.doctor/9"),
        ("time.sleep(600)", "no answer within"),
    ],
    ids=["words", "refused", "version", "silent"],
)
async def test_what_cannot_be_read_says_why(tmp_path: Path, body: str, why: str) -> None:
    broken = program(tmp_path / "slotdeck", body)
    within_s = 0.2 if "sleep" in body else 60.0
    with pytest.raises(NotChecked, match=why):
        await checkup(Reach(), {}, here=(str(broken),), within_s=within_s)
    with pytest.raises(NotChecked, match="No such file"):
        await checkup(Reach(), {}, here=(str(tmp_path / "none"),))


async def test_an_error_has_its_place_on_the_screen() -> None:
    async with panel(ScriptedControl()) as (app, pilot):
        await pilot.press("D")
        await until(pilot, lambda: isinstance(app.screen, DoctorScreen))
        await until(pilot, lambda: "Run `slotdeck doctor` on the machine" in text(app))
        assert toasts(app) == []
