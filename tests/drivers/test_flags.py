"""Flags in their order: the layout's values take the driver's place, and none stands twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.layout import FLAG, Scalar
from engine.drivers.flags import Flag, with_args, written

OWN = (
    Flag("host", "127.0.0.1", "driver"),
    Flag("max-model-len", None, "driver"),
    Flag("enforce-eager", value=True, source="driver"),
    Flag("tensor-parallel-size", "2", "placement"),
)


def words(args: dict[str, Scalar]) -> str:
    return " ".join(written(with_args(OWN, args, aliases={"tp": "tensor-parallel-size"}))[0])


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ({}, "--host 127.0.0.1 --enforce-eager --tensor-parallel-size 2"),
        (
            {"max-model-len": 2048},
            "--host 127.0.0.1 --max-model-len 2048 --enforce-eager --tensor-parallel-size 2",
        ),
        ({"tp": 4}, "--host 127.0.0.1 --enforce-eager --tensor-parallel-size 4"),
        (
            {"tensor_parallel_size": 4},
            "--host 127.0.0.1 --enforce-eager --tensor-parallel-size 4",
        ),
        ({"enforce-eager": False}, "--host 127.0.0.1 --tensor-parallel-size 2"),
        (
            {"no-enforce-eager": True},
            "--host 127.0.0.1 --no-enforce-eager --tensor-parallel-size 2",
        ),
        (
            {"seed": 1, "x": False, "y": True, "z": 0.5},
            "--host 127.0.0.1 --enforce-eager --tensor-parallel-size 2 --seed 1 --y --z 0.5",
        ),
        (
            {"override": "-1 a"},
            "--host 127.0.0.1 --enforce-eager --tensor-parallel-size 2 --override=-1 a",
        ),
        ({"seed": ""}, "--host 127.0.0.1 --enforce-eager --tensor-parallel-size 2 --seed "),
    ],
)
def test_args_take_their_place(args: dict[str, Scalar], line: str) -> None:
    assert words(args) == line


def test_the_source_tells_what_gave_way() -> None:
    flags = with_args(OWN, {"enforce-eager": False, "host": "::1", "max-model-len": 8})
    assert [flag.source for flag in flags] == [
        "layout, instead of --host 127.0.0.1",
        "layout",
        "layout, instead of --enforce-eager",
        "placement",
    ]
    assert written((Flag("a", "b", "c"), Flag("d", value=True, source="e"))) == (
        ("--a", "b", "--d"),
        ("c", "c", "e"),
    )


names = st.sampled_from(["host", "tp", "tensor-parallel-size", "max_model_len"]) | st.from_regex(
    rf"\A{FLAG}\Z"
)
values = st.booleans() | st.integers() | st.text(max_size=4)


@given(st.dictionaries(names, values, max_size=6))
def test_no_flag_stands_twice(args: dict[str, Scalar]) -> None:
    flags = with_args(OWN, args, aliases={"tp": "tensor-parallel-size"})
    seen = [flag.name.replace("_", "-") for flag in flags]
    assert len(seen) == len(set(seen))
    own = [flag.name for flag in flags if flag.name in {flag.name for flag in OWN}]
    assert own == [flag.name for flag in OWN if flag.name in own]
