"""Whom a plan meets, and in which words."""

import pytest

from engine.core.cpuset import CpuSet
from engine.core.strangers import Stranger, held_pus, holders, is_load, on

GIB = 1 << 30


def stranger(pid: int, pus: str = "", *, gib: int = 1, gpus: tuple[int, ...] = ()) -> Stranger:
    return Stranger(
        pid=pid,
        name="python3",
        uid=1000,
        user="alice",
        pus=CpuSet.parse(pus),
        memory_nodes=None,
        gpus=gpus,
        threads=1,
        rss_bytes=gib * GIB,
        cpu_seconds=1.0,
    )


ONE, TWO, THREE = stranger(812, "0-3"), stranger(9, "2-7", gib=2), stranger(77, gpus=(0, 2))


def test_who_holds_it() -> None:
    every = (ONE, TWO, THREE)
    assert on(every, CpuSet.parse("3-4")) == (ONE, TWO)
    assert on(every, CpuSet.parse("0-1,8-9")) == (ONE,)
    assert on(every, gpus=[2]) == (THREE,)
    assert on(every, CpuSet([7]), [0]) == (TWO, THREE)
    assert on(every, CpuSet([8]), [1]) == on(every) == ()
    assert str(held_pus(every)) == "0-7"


@pytest.mark.parametrize(
    ("strangers", "words"),
    [
        ([], ""),
        ([ONE], "python3 (pid 812, alice)"),
        ([ONE, TWO], "python3 (pid 9, alice) and python3 (pid 812, alice)"),
        (
            [ONE, TWO, THREE, stranger(78)],
            "python3 (pid 9, alice), python3 (pid 77, alice), python3 (pid 78, alice) and 1 more",
        ),
    ],
)
def test_the_largest_are_named(strangers: list[Stranger], words: str) -> None:
    assert holders(strangers) == words


@pytest.mark.parametrize(
    ("memory_mib", "busy_pus", "pinned", "contained"),
    [
        (255, 0.09, False, False),
        # An engine between two requests, and one of little memory at work.
        (256, 0.0, True, False),
        (10, 0.1, True, False),
        (2047, 0.4, True, False),
        (2048, 0.0, True, True),
        (10, 0.5, True, True),
    ],
)
def test_what_is_load(memory_mib: int, busy_pus: float, *, pinned: bool, contained: bool) -> None:
    assert is_load(memory_mib << 20, busy_pus, contained=False) == pinned
    assert is_load(memory_mib << 20, busy_pus, contained=True) == contained
