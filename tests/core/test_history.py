"""Undo and redo: whatever was recorded can be walked back and forth, up to the newest 50."""

from hypothesis import given
from hypothesis import strategies as st

from engine.core.history import MOST_STEPS, History, Step

EMPTY: History[int] = History()


def step(what: int) -> Step[int]:
    return Step(str(what), {"a": what - 1}, {"a": what})


@given(st.lists(st.sampled_from(["do", "back", "again"]), max_size=120))
def test_back_and_again_walk_the_same_steps(moves: list[str]) -> None:
    history = EMPTY
    now, made = 0, 0
    for move in moves:
        if move == "do":
            made += 1
            history = history.recorded(Step(str(made), {"a": now}, {"a": made}))
            now = made
        elif move == "back" and (taken := history.undo):
            history, now = history.back(), taken.before["a"] or 0
        elif move == "again" and (redone := history.redo):
            history, now = history.again(), redone.after["a"] or 0
        if history.undo:
            assert history.undo.after["a"] == now
        if history.redo:
            assert history.redo.before["a"] == now
        assert len(history.done) <= MOST_STEPS
    while taken := history.undo:
        assert taken.after["a"] == now
        history, now = history.back(), taken.before["a"] or 0
    assert made > MOST_STEPS or now == 0


def test_something_new_buries_what_was_undone() -> None:
    history = EMPTY.recorded(step(1)).recorded(step(2)).back()
    assert history.redo == step(2)
    history = history.recorded(step(9))
    assert history.redo is None
    assert [each.what for each in history.done] == ["1", "9"]


def test_nothing_to_walk() -> None:
    assert EMPTY.back() == EMPTY.again() == EMPTY
