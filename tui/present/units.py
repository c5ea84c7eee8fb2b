"""Numbers as the screen shows them: short, with a dash for what is not known."""

UNKNOWN = "–"
GIB = 1 << 30
HUGE = 1e15


def number(value: float | None, decimals: int = 0) -> str:
    """`12.3`, with k, M, G above 99,999; a dash for None and for what is not finite."""
    if value is None or value != value or abs(value) >= HUGE:
        return UNKNOWN
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e5, "k")):
        if abs(value) >= factor:
            scale = 1e3 if suffix == "k" else factor
            return f"{value / scale:.1f}{suffix}"
    return f"{value:.{decimals}f}"


def percent(share: float | None) -> str:
    """`98 %` of a share from 0 to 1."""
    return UNKNOWN if share is None else f"{number(share * 100)} %"


def gib(count: int | None, decimals: int = 1) -> str:
    """A number of bytes in GiB, without the unit."""
    return UNKNOWN if count is None else number(count / GIB, decimals)


def memory(count: int | None) -> str:
    """`7.8 GiB`."""
    if count is None:
        return UNKNOWN
    if count >= 1024 * GIB:
        return f"{number(count / (1024 * GIB), 1)} TiB"
    return f"{number(count / GIB, 1 if count < 100 * GIB else 0)} GiB"


def span(seconds: float | None) -> str:
    """`12 s`, `3 min`, `5 h`, `2 d`."""
    if seconds is None or seconds < 0 or seconds != seconds:
        return UNKNOWN
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{number(seconds // size)} {unit}"
    return f"{seconds:.0f} s"


def count(how_many: int, noun: str) -> str:
    """`1 core`, `2 cores`."""
    return f"{how_many:,} {noun}{'' if how_many == 1 else 's'}"
