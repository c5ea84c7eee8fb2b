"""How busy a PU is, in the few levels that a cell can show."""

LEVELS = 8


def level(share: float | None) -> int | None:
    """0 to 7; None where the load is not known."""
    if share is None or share != share:
        return None
    return min(LEVELS - 1, int(max(0.0, share) * LEVELS))
