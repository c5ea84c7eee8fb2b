"""Which row a new sequence gets, what it finds there, and what is emptied for it."""

import random
from typing import Any

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from engine.worker.kv_cache import LeanCache, placed  # noqa: E402
from engine.worker.places import SHORTEST_REUSED, Places  # noqa: E402

LENGTH = 100


class Model:
    """Writes each token's own number where its keys would lie."""

    def __init__(
        self, *, rows: int, budget: int | None = None, idle: int = 10_000, keep: bool = True
    ) -> None:
        self.cache = LeanCache(max_rows=rows, max_length=LENGTH)
        most = budget or rows * LENGTH
        self.places = Places(self.cache, budget=most, idle_budget=idle, keep=keep)
        self.running: list[list[int]] = []

    def begin(self, prompt: list[int], most: int = LENGTH) -> int | None:
        reused = self.places.take(prompt, most, self.running)
        if reused is None:
            return None
        self.running.append(list(prompt[:reused]))
        for token in prompt[reused:]:
            self.add(len(self.running) - 1, token)
        return reused

    def add(self, row: int, token: int) -> None:
        self.cache.aim(row, row + 1, 1)
        pools, aim = self.cache.pools(1, 2, 1, torch.float32)
        placed(pools[0], torch.full((1, 2, 1, 1), float(token)), *aim)
        self.cache.advance()
        self.running[row].append(token)

    def end(self, row: int, *, before_last: bool = False) -> None:
        self.places.leave(row, self.running[row], before_last=before_last)
        if before_last and row < len(self.running) - 1:
            self.running[row] = self.running[-2]
            self.running[-2] = self.running[-1]
        else:
            self.running[row] = self.running[-1]
        self.running.pop()

    def check(self) -> None:
        assert self.cache.lengths == [len(tokens) for tokens in self.running]
        for row, tokens in enumerate(self.running):
            got: Any = self.cache._pools[0][row, 0, : len(tokens), 0]
            assert got.tolist() == tokens


def prompt(*parts: tuple[int, int]) -> list[int]:
    return [value for value, count in parts for _ in range(count)]


def test_an_ended_sequence_is_taken_over() -> None:
    model = Model(rows=2)
    assert model.begin(prompt((1, 30))) == 0
    model.end(0)
    assert model.begin(prompt((1, 25), (2, 9))) == 25
    model.check()


def test_a_token_is_always_left_to_compute() -> None:
    model = Model(rows=1)
    model.begin(prompt((1, 30)))
    model.end(0)
    assert model.begin(prompt((1, 30))) == 29
    model.check()


def test_a_running_sequence_is_copied_from_and_stays() -> None:
    model = Model(rows=3)
    model.begin(prompt((1, 40), (2, 3)))
    assert model.begin(prompt((1, 40), (3, 2))) == 40
    model.check()


def test_a_short_beginning_is_not_worth_it() -> None:
    model = Model(rows=2)
    model.begin(prompt((1, 50)))
    model.end(0)
    assert model.begin(prompt((1, SHORTEST_REUSED - 1), (2, 20))) == 0
    model.check()


def test_without_keeping_nothing_is_reused() -> None:
    model = Model(rows=2, keep=False)
    model.begin(prompt((1, 50)))
    assert model.begin(prompt((1, 50))) == 0
    model.end(0)
    model.check()
    model.end(0)
    assert model.begin(prompt((1, 50))) == 0


def test_two_talks_in_turns_both_stay() -> None:
    model = Model(rows=2)
    one, other = prompt((1, 20)), prompt((2, 20))
    for talk in (one, other):
        model.begin(talk)
        model.end(0)
    for _ in range(3):
        for talk in (one, other):
            talk += prompt((3, 5))
            assert model.begin(talk) == len(talk) - 5
            model.check()
            model.end(0)


def test_memory_that_others_asked_for_is_waited_for() -> None:
    model = Model(rows=4, budget=LENGTH)
    assert model.begin(prompt((1, 20)), most=60) == 0
    assert model.begin(prompt((2, 20)), most=60) is None
    assert model.begin(prompt((2, 20)), most=40) == 0
    model.end(0)
    assert model.begin(prompt((1, 20)), most=60) is not None
    model.check()


def test_idle_rows_are_emptied_before_anybody_waits() -> None:
    model = Model(rows=4, budget=LENGTH)
    for value in (1, 2, 3):
        model.begin(prompt((value, 30)), most=30)
        model.end(0)
    assert model.begin(prompt((9, 20)), most=LENGTH) == 0
    assert sum(model.cache.touched[1:]) == 0
    model.check()


def test_ended_sequences_hold_no_more_than_they_may() -> None:
    model = Model(rows=4, idle=70)
    for value in (1, 2, 3):
        model.begin(prompt((value, 30)))
        model.end(0)
    assert sum(model.cache.touched) == 60
    assert model.begin(prompt((1, 30))) == 0  # the oldest had to go
    model.end(0)
    assert model.begin(prompt((3, 30))) == 29


def test_whatever_happens_rows_hold_their_own_tokens() -> None:
    """A long story of arrivals and departures, with few different beginnings."""
    chance = random.Random(7)
    for budget in (None, 2 * LENGTH):
        model = Model(rows=4, budget=budget)
        reused = 0
        for _ in range(300):
            if len(model.running) < 4 and chance.random() < 0.55:
                fresh = prompt((chance.randint(1, 3), 20), (chance.randint(4, 6), 15))
                reused += model.begin([*fresh, chance.randint(10, 99)], most=60) or 0
            elif model.running and chance.random() < 0.6:
                row = chance.randrange(len(model.running))
                last = len(model.running) - 1
                model.end(row, before_last=row < last and chance.random() < 0.5)
            elif model.running:
                row = chance.randrange(len(model.running))
                if len(model.running[row]) < 60:
                    model.add(row, chance.randint(10, 99))
            model.check()
            if budget is not None:
                assert sum(model.cache.touched) <= budget
        assert reused > 500
