"""Arms made from one instance, which of them wins, and what of the screen is told by lines."""

import msgspec
import pytest

from engine.core.comparing.choosing import winner_of_all
from engine.core.comparing.split import HALVES, WHOLE, split
from engine.core.comparing.telling import Ended, Said, line_of, told_in
from engine.core.cpuset import CpuSet
from engine.core.errors import UsageError
from engine.core.layout import Instance
from engine.core.synthetic import parse_synthetic

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
    won = {
        ("one", "two"): ("two", "faster"),
        ("one", "both"): ("both", "more"),
        ("both", "two"): ("two", "sooner"),
    }
    assert winner_of_all(won) == ("two", "faster; sooner")
    assert winner_of_all({**won, ("both", "two"): (None, "no difference")}) == (
        None,
        "no difference",
    )
    circle = {**won, ("one", "two"): ("one", "cheaper")}
    assert winner_of_all(circle) == (None, "each of them loses to another one")


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
