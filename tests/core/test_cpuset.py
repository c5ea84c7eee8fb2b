"""CPU sets: the kernel's list form there and back, and set algebra."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.cpuset import CpuSet

indexes = st.frozensets(st.integers(0, 3000), max_size=80)


@given(indexes)
def test_what_is_written_is_read_back(numbers: frozenset[int]) -> None:
    assert CpuSet.parse(str(CpuSet(numbers))) == CpuSet(numbers)
    assert list(CpuSet(numbers)) == sorted(numbers)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", []),
        ("\n", []),
        ("0\n", [0]),
        ("0-3,8", [0, 1, 2, 3, 8]),
        ("5-5", [5]),
        ("8,0-1", [0, 1, 8]),
        ("0-2,1-3", [0, 1, 2, 3]),
        ("00,01", [0, 1]),
    ],
)
def test_kernel_forms(text: str, numbers: list[int]) -> None:
    assert list(CpuSet.parse(text)) == numbers


@pytest.mark.parametrize(
    "text",
    [
        *("a", "-1", "+1", "1-", "-", ",", "1,,2", "1,", ",1", "3-1", "1--2", "1-2-3", "0x1"),
        *("1_0", "1.5", "1 2", "1, 2", "1 -2", "²", "٣", "0-٣", "0-²", "1\n2", "\0", "0-3:2/4"),
        *("9" * 5000, "0-" + "9" * 5000, "1048577"),
    ],
)
def test_what_the_kernel_would_not_write_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"index|backwards"):
        CpuSet.parse(text)


def test_a_huge_range_is_refused_before_it_is_built() -> None:
    begun = time.process_time()
    with pytest.raises(ValueError, match="larger than any kernel"):
        CpuSet.parse("0-999999999999")
    assert time.process_time() - begun < 1


@given(st.text(alphabet="0123456789-, a٣", max_size=12))
def test_only_value_errors_escape(text: str) -> None:
    found = _parsed(text)
    if isinstance(found, ValueError):
        assert len(str(found)) < 120
    else:
        assert CpuSet.parse(str(found)) == found


def _parsed(text: str) -> CpuSet | ValueError:
    try:
        return CpuSet.parse(text)
    except ValueError as error:
        return error


@given(indexes, indexes)
def test_set_algebra(a: frozenset[int], b: frozenset[int]) -> None:
    one, two = CpuSet(a), CpuSet(b)
    assert (one & two).pus == a & b
    assert (one | two).pus == a | b
    assert (one - two).pus == a - b
    assert (one <= two) == (a <= b)
    assert (one == two) == (a == b)
    assert len(one) == len(a)
    assert bool(one) == bool(a)
    assert all(index in one for index in a)
    assert hash(one) == hash(CpuSet(a))


def test_it_does_not_change_and_is_no_other_kind() -> None:
    with pytest.raises(AttributeError):
        CpuSet([1]).pus = frozenset()
    assert CpuSet([1]) != frozenset([1])
    assert repr(CpuSet([0, 1, 2, 8])) == "CpuSet('0-2,8')"
