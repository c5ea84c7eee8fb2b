"""How busy a PU is, in the few levels that a cell can show."""

LEVELS = 8


def level(share: float | None) -> int | None:
    """0 to 7; None where the load is not known."""
    if share is None or share != share:
        return None
    return min(LEVELS - 1, int(max(0.0, share) * LEVELS))


def heat(at: int, below: int | None = None) -> str:
    """The ink of a level; with `below` the upper and lower half of a cell.

    Four colours for eight heights: a colour code costs as much as a dozen cells, and what is
    written over SSH is what one waits for.
    """
    return f"heat:{at | 1}" if below is None else f"heat:{at | 1}:{below | 1}"
