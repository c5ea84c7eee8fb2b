"""Which sequence lies in which row of the cache, and which rows still hold a prompt to reuse."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from engine.worker.kv_cache import Rows

SHORTEST_REUSED = 16
"""Fewer common tokens than that are computed anew: they are a template's first words."""


@dataclass(frozen=True)
class _Kept:
    tokens: list[int]
    used: int
    """Greater is later."""


class Places:
    """Rows in use are dense, as the cache wants them; behind them lie rows of ended sequences.

    A new sequence starts from the row with which it has the longest beginning in common: it takes
    the row over where its owner has ended, and copies from it where it still runs. Every row in
    use may grow to what its sequence asked for; all that and what idle rows still hold stays
    within `budget` tokens, and idle rows within `idle_budget`; for that idle rows are emptied, the
    longest unused first.
    """

    def __init__(self, cache: Rows, *, budget: int, idle_budget: int, keep: bool) -> None:
        self._cache, self._budget, self._keep = cache, budget, keep
        self._idle_budget = idle_budget
        self._kept: dict[int, _Kept] = {}
        self._reserved: list[int] = []
        self._clock = 0

    @property
    def used_share(self) -> float:
        return sum(self._cache.lengths) / self._budget

    def take(
        self, prompt: Sequence[int], most: int, running: Sequence[Sequence[int]]
    ) -> int | None:
        """A row after all others, for a sequence of at most `most` tokens; says how many of the
        prompt's lie there already. None while there is no memory for it.

        `running`: the tokens of the rows in use, in their order.
        """
        row = len(self._cache.lengths)
        match, length = self._longest(prompt, running)
        if not self._make_room(most, match):
            return None
        if match not in self._kept and match >= row:
            match, length = -1, 0  # it had to be emptied
        if match >= row:
            self._bring(match, row, length)
        else:
            self._vacate(row)
            if length:
                self._cache.copy_row(match, row, length)
        self._cache.add_row(length)
        self._reserved.append(most)
        return length

    def leave(self, row: int, tokens: Sequence[int], *, before_last: bool) -> None:
        """Frees a row. The last one takes its place, or the one before the last does and the last
        takes the place of that."""
        last = len(self._cache.lengths) - 1
        steps = [row, last - 1, last] if before_last and row < last else [row, last]
        for one, other in pairwise(steps):
            if one != other:
                self._exchange(one, other)
        length = self._cache.lengths[last]
        self._cache.drop_last_row()
        self._reserved.pop()
        if self._keep and length >= SHORTEST_REUSED:
            self._clock += 1
            self._kept[last] = _Kept(list(tokens[:length]), self._clock)
        idle = self._idle()
        while sum(self._cache.touched[row] for row in idle) > self._idle_budget:
            self._empty(idle.pop(0))

    def release(self) -> None:
        """Gives back the memory of long contexts, when nothing runs."""
        if self._cache.release():
            self._kept.clear()

    def clear(self) -> None:
        self._cache.lengths.clear()
        self._reserved.clear()
        self._kept.clear()

    def _longest(self, prompt: Sequence[int], running: Sequence[Sequence[int]]) -> tuple[int, int]:
        """Row and length of the best common beginning; a token must be left to compute."""
        if not self._keep:
            return -1, 0
        found = [(_common(prompt, tokens), row) for row, tokens in enumerate(running)]
        found = [(min(length, self._cache.lengths[row]), row) for length, row in found]
        found += [(_common(prompt, kept.tokens), row) for row, kept in self._kept.items()]
        length, row = max(found, default=(0, -1))
        length = min(length, len(prompt) - 1)
        return (row, length) if length >= SHORTEST_REUSED else (-1, 0)

    def _make_room(self, most: int, match: int) -> bool:
        """Empties idle rows until a sequence of this length fits."""
        touched = self._cache.touched
        idle = self._idle()
        if match in idle:
            idle.remove(match)
            idle.append(match)  # emptied last
        reserved = sum(self._reserved)
        while True:
            held = sum(touched[row] for row in idle if row != match)
            own = max(most, touched[match]) if match in idle else most
            if reserved + held + own <= self._budget:
                return True
            if not idle:
                return False
            self._empty(idle.pop(0))

    def _idle(self) -> list[int]:
        """Rows not in use that hold memory, in the order in which they are best emptied."""
        touched = self._cache.touched
        rows = [row for row in range(len(self._cache.lengths), len(touched)) if touched[row]]
        return sorted(rows, key=lambda row: self._kept[row].used if row in self._kept else 0)

    def _empty(self, row: int) -> None:
        self._cache.give_back(row)
        self._kept.pop(row, None)

    def _bring(self, match: int, row: int, length: int) -> None:
        """Puts a kept row where the next one in use must lie."""
        self._kept.pop(match)
        if match == row:
            return
        here = self._kept.pop(row, None)
        self._cache.swap_rows(row, match, (len(here.tokens) if here else 0, length))
        if here is not None:
            self._kept[match] = here

    def _vacate(self, row: int) -> None:
        """What is kept in a row moves to where less is lost."""
        here = self._kept.get(row)
        if here is None:
            return
        size = len(here.tokens)
        touched = self._cache.touched
        free = [one for one in range(row + 1, len(touched)) if one not in self._kept]
        total = sum(self._reserved) + sum(touched[len(self._reserved) :])
        if free and total + size <= self._budget:
            target = max(free, key=lambda one: touched[one])
        else:
            target = min(self._kept, key=lambda one: self._kept[one].used)
        self._kept.pop(row)
        if target != row:
            self._cache.copy_row(row, target, size)
            self._kept[target] = here

    def _exchange(self, one: int, other: int) -> None:
        lengths = self._cache.lengths
        if self._keep:
            self._cache.swap_rows(one, other, (lengths[one], lengths[other]))
        else:
            self._cache.copy_row(other, one, lengths[other])
        lengths[one], lengths[other] = lengths[other], lengths[one]
        reserved = self._reserved
        reserved[one], reserved[other] = reserved[other], reserved[one]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with; slices are compared by C."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if list(one[low:middle]) == list(other[low:middle]):
            low = middle
        else:
            high = middle - 1
    return low
