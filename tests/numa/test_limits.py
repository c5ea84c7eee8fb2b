"""Limits on real kernels: both versions of control groups, at the top and in a group of ours."""

import json
from typing import Any

import pytest

from tests.numa.booted import PYTHON, ROOT, booted
from tests.numa.guest import Shape
from tests.numa.limits_story import MIB

VERSION_1 = (
    "umount /sys/fs/cgroup && mount -t tmpfs groups /sys/fs/cgroup && cd /sys/fs/cgroup && "
    "for one in memory cpu cpuset; do mkdir $one && mount -t cgroup -o $one groups $one; done && "
)
Told = dict[str, Any]


@pytest.fixture(scope="module", params=["top", "ours", "v1"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp(request.param)
    before = VERSION_1 if request.param == "v1" else ""
    booted(
        Shape(sockets=2, cards=()),
        f"{before}cd {ROOT} && "
        f"{PYTHON} -m tests.numa.limits_story {folder}/told.json {request.param}",
        work=folder,
        within_s=900,
    )
    read: Told = json.loads((folder / "told.json").read_text())
    return {**read, "where": request.param}


def test_limits_take_in_a_group_of_the_instances_own(told: Told) -> None:
    verified, why, groups = told["up"]
    assert verified is True, why
    parents = {"top": ["0::/"], "ours": ["0::/ours/"], "v1": ["memory:/", "cpu:/"]}[told["where"]]
    for parent in parents:
        assert any(f"{parent}slotdeck_" in line for line in groups), groups


def test_an_engine_over_its_limit_ends_with_the_figure(told: Told) -> None:
    assert "memory ran out: the kernel ended" in told["over"]
    assert f"its control group was at its limit of {MIB} MiB" in told["over"]
    assert "Raise memory_limit" in told["over"]


def test_a_live_move_keeps_the_limits(told: Told) -> None:
    moved = told["moved"]
    live, slot, consequences = moved["live"]
    assert (live, slot) == (["a"], "numa:1/core:0"), consequences
    assert moved["differences"] == []
    assert moved["policy"] == "bind:1"
    groups = moved["groups"]
    if told["where"] == "v1":
        assert any("cpuset:/slotdeck-" in line for line in groups), groups
        assert any("memory:/slotdeck_" in line for line in groups), groups
    else:
        assert "/slotdeck_" in groups[-1]
        assert "/slotdeck-" in groups[-1]
