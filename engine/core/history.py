"""What was done and can be taken back: steps with the state before and after, newest last."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S")

MOST_STEPS = 50


@dataclass(frozen=True, slots=True)
class Step(Generic[S]):
    """One change of some instances; None is an instance that is not on the list."""

    what: str
    """In words, such as `move a to numa:1`."""
    before: Mapping[str, S | None]
    after: Mapping[str, S | None]


@dataclass(frozen=True, slots=True)
class History(Generic[S]):
    """Steps that were done, and those taken back that nothing new has buried."""

    done: tuple[Step[S], ...] = ()
    undone: tuple[Step[S], ...] = ()

    def recorded(self, step: Step[S]) -> "History[S]":
        """One step more; what was taken back before cannot be done again."""
        return History((*self.done, step)[-MOST_STEPS:])

    def back(self) -> "History[S]":
        """The newest step taken back."""
        return History(self.done[:-1], (*self.undone, *self.done[-1:]))

    def again(self) -> "History[S]":
        """The step that was taken back last, done again."""
        return History((*self.done, *self.undone[-1:]), self.undone[:-1])

    @property
    def undo(self) -> Step[S] | None:
        """What `back` would take back."""
        return self.done[-1] if self.done else None

    @property
    def redo(self) -> Step[S] | None:
        """What `again` would do."""
        return self.undone[-1] if self.undone else None
