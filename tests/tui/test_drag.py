"""The drag: it only ever asks, and loses nothing when the terminal misbehaves."""

import pytest

from tui.drag import (
    SILENT_S,
    Aimed,
    Ask,
    Cancelled,
    Cargo,
    Carry,
    Drag,
    Dropped,
    Event,
    Grip,
    Grown,
    Kind,
    LetGo,
    Moved,
    Picked,
    Pressed,
    Released,
    Tick,
    move,
    step,
)

A = move("a")
DRAW = Cargo(Kind.DRAW, ("new",))
PRESS = Pressed(5, 5, A, "core:0", 0.0)


def play(*events: Event) -> tuple[Drag, list[object], list[bool]]:
    drag: Drag = None
    effects: list[object] = []
    swallowed = []
    for event in events:
        done = step(drag, event)
        drag = done.drag
        swallowed.append(done.swallow)
        if done.effect:
            effects.append(done.effect)
    return drag, effects, swallowed


ASKS: list[object] = [Ask(A, "core:1")]
STORIES: dict[str, tuple[tuple[Event, ...], Drag, list[object]]] = {
    "drag and drop": ((PRESS, Moved(9, 3, "core:1", 1), Released(9, 3, "core:1", 2)), None, ASKS),
    "click": ((PRESS, Released(5, 5, "core:0", 1)), None, []),
    "tremble in place": ((PRESS, Moved(5, 5, "core:0", 1)), Grip(A, 5, 5, 0.0), []),
    "no motion reports": ((PRESS, Released(9, 3, "core:1", 1)), None, ASKS),
    "press on nothing": ((Pressed(1, 1, None, None, 0), Moved(9, 3, "core:1", 1)), None, []),
    "drop outside": (
        (PRESS, Moved(99, 99, None, 1), Released(99, 99, None, 2)),
        None,
        [LetGo("that is no slot of the machine")],
    ),
    "release lost": (
        (PRESS, Moved(9, 3, "core:1", 1), Pressed(2, 2, move("b"), "core:7", 2)),
        None,
        [LetGo("the button's release was lost")],
    ),
    "escape": (
        (PRESS, Moved(9, 3, "core:1", 1), Cancelled("put back")),
        None,
        [LetGo("put back")],
    ),
    "mouse goes silent": (
        (PRESS, Moved(9, 3, "core:1", 1), Tick(2 + SILENT_S)),
        None,
        [LetGo("the mouse went silent")],
    ),
    "keys": ((Picked(A, None, 0), Aimed("core:1"), Dropped()), None, ASKS),
    "keys do not time out": (
        (Picked(A, "core:1", 0), Tick(999)),
        Carry(A, "core:1", 0, 0, by_mouse=False, at=0),
        [],
    ),
    "enter without a slot": (
        (Picked(A, None, 0), Dropped()),
        Carry(A, None, 0, 0, by_mouse=False, at=0),
        [],
    ),
    "more cores by keys": (
        (Picked(A, "core:1", 0), Grown(1), Grown(1), Grown(-1), Dropped()),
        None,
        [Ask(Cargo(Kind.MOVE, ("a",), grown=1), "core:1")],
    ),
    "draw by keys: from here to there": (
        (Picked(DRAW, "core:3", 0), Dropped(), Aimed("core:6"), Dropped()),
        None,
        [Ask(Cargo(Kind.DRAW, ("new",), anchor=3), "core:6")],
    ),
    "draw a whole place by keys": (
        (Picked(DRAW, "core:3", 0), Aimed("numa:1"), Dropped()),
        None,
        [Ask(DRAW, "numa:1")],
    ),
    "draw with the mouse": (
        (
            Picked(DRAW, None, 0),
            Pressed(4, 4, move("b"), "core:3", 1),
            Moved(7, 4, "core:6", 2),
            Released(7, 4, "core:6", 3),
        ),
        None,
        [Ask(Cargo(Kind.DRAW, ("new",), anchor=3), "core:6")],
    ),
    "a click draws one place": (
        (
            Picked(DRAW, None, 0),
            Pressed(4, 4, None, "gpu:1", 1),
            Released(4, 4, "gpu:1", 2),
        ),
        None,
        [Ask(DRAW, "gpu:1")],
    ),
    "grown when nothing is carried": ((Grown(1),), None, []),
    "release without press": ((Released(3, 3, "core:1", 0),), None, []),
}


@pytest.mark.parametrize(("events", "drag", "effects"), STORIES.values(), ids=STORIES)
def test_story(events: tuple[Event, ...], drag: Drag, effects: list[object]) -> None:
    assert play(*events)[:2] == (drag, effects)


def test_widgets_see_clicks_but_no_drags() -> None:
    assert play(PRESS, Released(5, 5, None, 1))[2] == [False, False]
    moved = Moved(9, 3, "core:1", 1)
    assert play(PRESS, moved, Released(9, 3, "core:1", 2))[2] == [False, True, True]


def test_a_drag_follows_the_pointer() -> None:
    drag, _, _ = play(PRESS, Moved(9, 3, "core:1", 1), Moved(10, 4, None, 2))
    assert drag == Carry(A, None, 10, 4, by_mouse=True, at=2)
