"""Sets of operating-system indexes (PUs or NUMA nodes) in the kernel's list form."""

from collections.abc import Iterable, Iterator

LARGEST_INDEX = 1 << 20
"""Larger numbers are garbage: the kernel's largest CONFIG_NR_CPUS is 8192, IDs stay below this."""


class CpuSet:
    """An immutable set of indexes, written `0-3,8` as in Documentation/admin-guide/cputopology.

    Used for PUs and, as `NodeSet`, for NUMA nodes. Iterates in ascending order.
    """

    __slots__ = ("pus",)
    pus: frozenset[int]

    def __init__(self, indexes: Iterable[int] = ()) -> None:
        object.__setattr__(self, "pus", frozenset(indexes))

    @classmethod
    def parse(cls, text: str) -> "CpuSet":
        """Read the kernel's list form; an empty text is the empty set.

        Raises ValueError for anything that the kernel would not write (`3-1`, `a`, `1,,2`).
        Only around the whole list may there be space: the kernel ends it with a new line.
        """
        text = text.strip()
        if not text:
            return cls()
        indexes: set[int] = set()
        for part in text.split(","):
            first, dash, last = part.partition("-")
            if not _is_index(first) or (dash and not _is_index(last)):
                raise ValueError(f"{_shortened(part)!r} is not an index or a range like 0-3")
            low = int(first)
            high = int(last) if dash else low
            if high < low:
                raise ValueError(f"the range {part!r} runs backwards")
            if high > LARGEST_INDEX:
                raise ValueError(f"the index {high} is larger than any kernel has")
            indexes.update(range(low, high + 1))
        return cls(indexes)

    def __str__(self) -> str:
        ranges: list[str] = []
        run: list[int] = []
        for index in [*sorted(self.pus), -1]:
            if run and index == run[-1] + 1:
                run.append(index)
                continue
            if run:
                ranges.append(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]))
            run = [index]
        return ",".join(ranges)

    def __repr__(self) -> str:
        return f"CpuSet({str(self)!r})"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a CpuSet does not change")

    def __eq__(self, other: object) -> bool:
        return self.pus == other.pus if isinstance(other, CpuSet) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.pus)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self.pus))

    def __len__(self) -> int:
        return len(self.pus)

    def __bool__(self) -> bool:
        return bool(self.pus)

    def __contains__(self, index: int) -> bool:
        return index in self.pus

    def __and__(self, other: "CpuSet") -> "CpuSet":
        return CpuSet(self.pus & other.pus)

    def __or__(self, other: "CpuSet") -> "CpuSet":
        return CpuSet(self.pus | other.pus)

    def __sub__(self, other: "CpuSet") -> "CpuSet":
        return CpuSet(self.pus - other.pus)

    def __le__(self, other: "CpuSet") -> bool:
        return self.pus <= other.pus


def _is_index(text: str) -> bool:
    # isdigit() alone also takes other scripts' digits; int() alone takes signs and underscores.
    return text.isascii() and text.isdigit() and len(text) <= 12


def _shortened(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:24]}…"


NodeSet = CpuSet
"""The same form for NUMA node indexes."""
