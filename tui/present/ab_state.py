"""A comparison as the panel knows it: folded from what it tells, line by line."""

from dataclasses import dataclass, replace
from enum import StrEnum

from engine.core.comparing.telling import (
    Deciding,
    Ended,
    Failed,
    Judged,
    Measuring,
    Paired,
    Planned,
    PuttingBack,
    Said,
    Told,
)

SAID_KEPT = 6


class Phase(StrEnum):
    """Where it stands."""

    PLANNING = "planning"
    OFFERED = "offered"
    RUNNING = "running"
    DECIDING = "deciding"
    SETTLING = "settling"
    OVER = "over"


AT_WORK = (Phase.RUNNING, Phase.DECIDING, Phase.SETTLING)
"""While what ran before may not be running."""


@dataclass(frozen=True, slots=True)
class AbState:
    """All that is known of it at one moment."""

    phase: Phase = Phase.PLANNING
    planned: Planned | None = None
    comparison: int = 1
    """Which of several is measured."""
    block: Measuring | None = None
    block_at: float = 0.0
    """When that was told, on the panel's clock."""
    quiet: Paired | None = None
    """The newest pair of A against itself, of this comparison."""
    paired: Paired | None = None
    """The newest pair of A and B."""
    orders: tuple[str, ...] = ()
    judged: tuple[Judged, ...] = ()
    deciding: Deciding | None = None
    decide_by: float | None = None
    """On the panel's clock."""
    settling: PuttingBack | None = None
    ended: Ended | None = None
    failed: Failed | None = None
    said: tuple[str, ...] = ()
    began_at: float | None = None
    stopping: bool = False
    """It has been told to end."""

    @property
    def arms(self) -> tuple[str, str]:
        """Names of A and B in this comparison."""
        if self.planned is None:
            return "A", "B"
        return self.planned.comparisons[self.comparison - 1]

    @property
    def newest(self) -> Paired | None:
        """What the ratios so far are from."""
        return self.paired or self.quiet


def begun(state: AbState, now: float) -> AbState:
    """It has been told to start."""
    return replace(state, phase=Phase.RUNNING, began_at=now)


def after(state: AbState, told: Told, now: float) -> AbState:
    """What is known once it has told this."""
    match told:
        case Planned():
            return replace(state, phase=Phase.OFFERED, planned=told)
        case Said(line=line):
            return replace(state, said=(*state.said, line)[-SAID_KEPT:])
        case Measuring():
            state = _in(state, told.comparison)
            return replace(state, block=told, block_at=now)
        case Paired(is_aa=True):
            return replace(_in(state, told.comparison), quiet=told, block=None)
        case Paired():
            state = _in(state, told.comparison)
            return replace(state, paired=told, block=None, orders=(*state.orders, told.order))
        case Judged():
            return replace(state, judged=(*state.judged, told), block=None)
        case Deciding():
            by = now + told.within_s
            return replace(state, phase=Phase.DECIDING, deciding=told, decide_by=by)
        case PuttingBack():
            return replace(state, phase=Phase.SETTLING, settling=told, block=None)
        case Ended():
            return replace(state, phase=Phase.OVER, ended=told)
        case Failed():
            return replace(state, phase=Phase.OVER, failed=told)


def _in(state: AbState, comparison: int) -> AbState:
    """The next of several begins with nothing measured."""
    if comparison == state.comparison:
        return state
    return replace(state, comparison=comparison, quiet=None, paired=None, block=None, orders=())
