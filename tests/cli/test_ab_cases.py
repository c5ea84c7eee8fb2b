"""Arms made from one instance, which of them wins, and what of the screen is told by lines."""

import argparse
from dataclasses import dataclass

import msgspec
import pytest

from engine.cli.ab import arguments
from engine.cli.ab_cases import Cases, cases
from engine.control import HeldLayout, HeldWish
from engine.core.comparing.choosing import Won, winner_of_all
from engine.core.comparing.single_dual import PAIRS
from engine.core.comparing.split import HALVES, WHOLE, split
from engine.core.comparing.telling import Ended, Said, line_of, told_in
from engine.core.cpuset import CpuSet
from engine.core.errors import UsageError
from engine.core.layout import Instance, parse_layout
from engine.core.status import InstanceStatus, Snapshot
from engine.core.synthetic import parse_synthetic
from engine.core.topology import Machine
from tests.tui.machines import SERVER
from tests.tui.scripted_control import instance, snapshot

WISH = Instance(name="a", model="m", slot="numa:0,1", port=8001, cores=4)


def test_halves_are_the_numa_nodes_of_what_spans_two() -> None:
    machine = parse_synthetic("pack:1 numa:2 core:2 pu:2")
    arms = split(WISH, machine.pus.online, machine)
    (whole,) = arms[WHOLE]
    left, right = (CpuSet.parse(one.slot.removeprefix("pu:")) for one in arms[HALVES])
    assert CpuSet.parse(whole.slot.removeprefix("pu:")) == machine.pus.online == left | right
    assert [left, right] == [node.cpus for node in machine.numa_nodes]
    assert {one.port for arm in arms.values() for one in arm} == {None}, "both run side by side"
    assert msgspec.structs.replace(
        left_out(arms[HALVES][0]), name="a", slot=WISH.slot
    ) == left_out(WISH)
    with pytest.raises(UsageError, match="it has one core"):
        split(WISH, machine.cores[0].pus, machine)


def left_out(wish: Instance) -> Instance:
    return msgspec.structs.replace(wish, port=None, cores=None)


def test_who_wins_all_of_its_comparisons_wins() -> None:
    first: Won = (("one", "two"), ("two", "faster"))
    second: Won = (("one", "both"), ("both", "more"))
    third: Won = (("both", "two"), ("two", "sooner"))
    assert winner_of_all([first, second, third]) == ("two", "faster; sooner")
    equal: Won = (("both", "two"), (None, "no difference"))
    assert winner_of_all([first, second, equal]) == (None, "no difference")
    cheaper: Won = (("one", "two"), ("one", "cheaper"))
    assert winner_of_all([first, cheaper]) == (None, "each of them loses to another one")
    assert winner_of_all([cheaper, second, third]) == (None, "each of them loses to another one")


def test_lines_come_back_as_they_were_told_and_unknown_ones_are_passed_over() -> None:
    for told in (Said("a – b"), Ended(None, interrupted=True, different=("x is gone",))):
        assert told_in(line_of(told)) == told
    for line in (
        b"",
        b"{}",
        b"[1]",
        b'{"event": "Later", "told": {"x": 1}}',
        b'{"event": "Said"}',
    ):
        assert told_in(line) is None


@dataclass
class Holding:
    """Of a service what arms are made from: two instances on a server with two cards."""

    held: HeldLayout
    statuses: tuple[InstanceStatus, ...]

    async def layout(self) -> HeldLayout:
        return self.held

    async def machine(self) -> Machine:
        return SERVER

    async def snapshot(self) -> Snapshot:
        return snapshot(SERVER, self.statuses)


def asked(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    arguments(parser)
    return parser.parse_args(words)


async def made(*words: str) -> Cases:
    wishes = (
        Instance(name="g", engine="vllm-xpu", model="m", slot="gpu:0", env={"HF_TOKEN": "x"}),
        Instance(name="c", model="m", slot="auto", cores=2),
    )
    statuses = (
        instance("g", "gpu:0", "0-7", gpus=(0,), port=8001),
        instance("c", "auto", "8-9", port=8002),
    )
    held = HeldLayout(tuple(HeldWish(one, "/") for one in wishes), "both")
    return await cases(asked(*words), Holding(held, statuses))  # type: ignore[arg-type]


def kept(found: Cases, arm: str) -> dict[str, tuple[str, int | None]]:
    layout = found.keep[arm]
    instances = parse_layout(layout.text, name=arm).instances
    return {one.name: (one.slot, one.port) for one in instances}


async def test_one_card_or_two_of_what_runs_keeps_the_other_instance_and_the_ports() -> None:
    found = await made("--single-dual", "g")
    assert found.pairs == PAIRS
    assert list(found.arms) == ["one card", "two cards", "two replicas"]
    assert kept(found, "one card") == {"g": ("gpu:0", 8001), "c": ("auto", 8002)}
    assert kept(found, "two cards") == {"g": ("gpu:0,1", 8001), "c": ("auto", 8002)}
    assert kept(found, "two replicas") == {
        "g-left": ("gpu:0", None),
        "g-right": ("gpu:1", None),
        "c": ("auto", 8002),
    }


async def test_here_is_where_it_came_to_be() -> None:
    found = await made("--move", "c", "numa:1")
    assert found.pairs == (("c on pu:8-9", "c on numa:1"),)
    assert kept(found, "c on numa:1") == {"g": ("gpu:0", 8001), "c": ("numa:1", 8002)}
    for words, why in (
        (("--move", "g", "gpu:0"), "g is on gpu:0 already"),
        (("--move", "x", "numa:0"), "it has: g, c"),
    ):
        with pytest.raises(UsageError, match=why):
            await made(*words)
