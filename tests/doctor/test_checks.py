"""Each check in every state that it can tell, and its commands on a copy of the files."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from engine.core.topology import Gpu
from engine.doctor import (
    clock_source,
    cpu_clock,
    cpu_limit,
    gpu_clock,
    gpu_link,
    numa_balancing,
    overcommit,
    power_cap,
    turbo,
)
from engine.doctor.host import Host
from engine.doctor.registry import CHECKS
from tests.doctor.cases import CASES, YES, Case, carded, host_of
from tests.machines_by_hand import gpu, small
from tests.sysfs_tree import SysfsTree


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.check.__module__.rpartition('.')[2]}-{case.state}"
)
def test_every_state(case: Case, tmp_path: Path) -> None:
    found = case.check(host_of(case, tmp_path))
    assert found is not None
    assert (found.state, case.words in found.found) == (case.state, True), found.found
    assert found.why or found.state == "ok"
    assert found.evidence or found.state == "unknown"
    if found.state in ("problem", "advice"):
        assert found.do
        if "sudo" in found.do and ("tee" in found.do or "sysctl" in found.do):
            assert "root" in (found.needs or ())


def test_the_table_has_every_check_in_order_and_in_trouble() -> None:
    for check in CHECKS:
        states = {case.state for case in CASES if case.check == check}
        assert "ok" in states, check.__module__
        assert states & {"advice", "problem"}, check.__module__
        assert "unknown" in states, check.__module__


def test_a_machine_without_cards_hears_nothing_of_them(tmp_path: Path) -> None:
    integrated: Gpu = replace(gpu(0, 0), integrated=True)
    for machine in (small(), replace(small(), gpus=(integrated,))):
        found = [check(Host(SysfsTree(tmp_path).root, machine, YES)) for check in CHECKS]
        assert sum(one is None for one in found) == 7
        assert not any(one is not None and one.id.startswith("gpu") for one in found)


def test_cards_are_told_together_the_worst_first(tmp_path: Path) -> None:
    base = carded(3)
    cards = (base.gpus[0], *(replace(one, link_width=8) for one in base.gpus[1:]))
    found = gpu_link.check(Host(SysfsTree(tmp_path).root, replace(base, gpus=cards)))
    assert found is not None
    assert found.found == "GPU 1-2: linked by 8 of 16 lanes (16 GT/s x8)"
    assert not any("0000:03" in one.path for one in found.evidence)


COMMANDS = [
    case
    for case in CASES
    if case.state in ("advice", "problem")
    and case.check
    in (cpu_clock.check, cpu_limit.check, turbo.check, power_cap.check, clock_source.check,
        numa_balancing.check, overcommit.check, gpu_clock.check)
    and "acpi_pm" not in case.words
]  # fmt: skip


@pytest.mark.parametrize("case", COMMANDS, ids=lambda case: case.check.__module__.split(".")[2])
def test_do_cures_it_and_undo_brings_it_back(case: Case, tmp_path: Path) -> None:
    host = host_of(case, tmp_path)

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def run(words: str | None) -> str:
        for command in re.findall("`([^`]+)`", words or ""):
            there = command.replace("sudo tee /", f"tee {tmp_path}/")
            there = re.sub(
                r"sudo sysctl (\w+)\.(\w+)=(\d+)", rf"echo \3 >{tmp_path}/proc/sys/\1/\2", there
            )
            assert "sudo" not in there
            subprocess.run(["bash", "-euc", there], check=True)
        found = case.check(host)
        assert found is not None
        return found.state

    before, trouble = contents(), case.check(host)
    assert trouble is not None
    assert run(trouble.do) == "ok"
    assert run(trouble.undo) == case.state
    assert contents() == before
