"""`slotdeck doctor` as it is called: words, JSON, exit codes, and the panel that shows it."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine.checkup import checkup
from engine.cli.doctor import told_checks
from engine.cli.main import main
from engine.core.checks import Check, Evidence
from engine.reach import Reach
from tests.machines_by_hand import server
from tests.sysfs_tree import SysfsTree, write_machine
from tests.tui.pilots import panel, text, until
from tests.tui.scripted_control import ScriptedControl

CLOCK = "sys/devices/system/clocksource/clocksource0/"


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    """Of a server without a problem, with one piece of advice."""
    write_machine(server(), tmp_path / "server")
    tree = SysfsTree(tmp_path / "server")
    tree.file("proc/sys/kernel/numa_balancing", "1")
    tree.file(f"{CLOCK}current_clocksource", "tsc")
    return tree


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["doctor", *words])
    return code, capsys.readouterr().out


def test_the_gravest_first_and_1_only_for_a_problem(
    tree: SysfsTree, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = said(capsys, "--root", str(tree.path))
    assert code == 0
    assert out.index("advice  numa-balancing") < out.index("unknown turbo") < out.index("ok      ")
    assert "`sudo sysctl kernel.numa_balancing=0`" in out
    assert "1 advice" in out.splitlines()[-1]
    tree.file(f"{CLOCK}current_clocksource", "hpet")
    code, out = said(capsys, "--root", str(tree.path))
    assert (code, out.split()[1:3]) == (1, ["problem", "clock-source"])


def test_its_json_has_all_keys_for_every_check(
    tree: SysfsTree, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = said(capsys, "--json", "--root", str(tree.path))
    told: dict[str, Any] = json.loads(out)
    assert (code, told["schema"]) == (0, "slotdeck.doctor/1")
    assert set(told) == {"schema", "checks"}
    keys = {"id", "state", "found", "evidence", "why", "do", "undo", "needs"}
    for one in told["checks"]:
        assert set(one) == keys
        assert one["state"] in ("ok", "advice", "problem", "unknown")
        assert all(set(each) == {"path", "value"} for each in one["evidence"])
        assert isinstance(one["needs"], list)
    (advice,) = [one for one in told["checks"] if one["state"] == "advice"]
    assert advice["evidence"] == [{"path": "/proc/sys/kernel/numa_balancing", "value": 1}]
    assert advice["undo"] == "`sudo sysctl kernel.numa_balancing=1`"
    assert advice["needs"] == ["root"]


def test_this_very_machine(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = said(capsys, "--json")
    states = {one["id"]: one["state"] for one in json.loads(out)["checks"]}
    assert code == int("problem" in states.values())
    assert states["memory-policy"] in ("ok", "problem")  # a live kernel can be asked
    assert states["delegation"] in ("ok", "advice")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_lines_fit_and_are_aligned(width: int) -> None:
    long = "word " * 30
    evidence = (Evidence("/proc/x", 1), Evidence("/proc/y"))
    checks = [
        Check("b-long-id", "ok", long),
        Check("a", "problem", long, evidence, long, long, long, ("root", "reboot")),
        Check("c", "unknown", "not told", evidence, "no file"),
    ]
    lines = told_checks(checks, width).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].index("word") == next(li for li in lines if "b-long-id" in li).index("word")
    assert "/proc/y: not told" in " ".join(" ".join(lines).split())
    assert "needs   root, reboot" in "\n".join(lines)


def test_help_says_what_the_exit_code_means(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    out = capsys.readouterr().out
    assert "Exit code 1 where there is a problem" in out
    assert "Nothing is changed" in out


async def test_the_panel_shows_the_commands_own_answer(tree: SysfsTree, tmp_path: Path) -> None:
    tree.file(f"{CLOCK}current_clocksource", "hpet")  # so it ends with 1
    here = tmp_path / "slotdeck"
    here.write_text(
        f"#!{sys.executable}\nimport sys\nfrom engine.cli.main import main\n"
        f"sys.exit(main([*sys.argv[1:], '--root', {str(tree.path)!r}]))\n"
    )
    here.chmod(0o755)
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    look = partial(checkup, Reach(), environment, here=(str(here),))
    async with panel(ScriptedControl(), checkup=look) as (app, pilot):
        await pilot.press("D")
        await until(pilot, lambda: "1 problem, 1 advice" in text(app), 60.0)
        await until(pilot, lambda: "clock-source" in text(app))
        assert "from hpet, a slow device" in text(app)
