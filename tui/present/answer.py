"""What was measured while an answer came."""

from engine.control import AnswerEnd
from tui.present.units import UNKNOWN, count, number


def progress(tokens: int, at_ms: float) -> str:
    """While it streams."""
    return f"{count(tokens, 'token')} after {number(at_ms / 1000, 1)} s"


def measured(end: AnswerEnd) -> str:
    """`TTFT 61 ms · ITL 24.1 ms mean · 41.5 tokens/s · 64 tokens · ended: length`."""
    itl = UNKNOWN if end.itl_ms_mean is None else f"{number(end.itl_ms_mean, 1)} ms mean"
    ttft = UNKNOWN if end.ttft_ms is None else f"{number(end.ttft_ms)} ms"
    return " · ".join(
        (
            f"TTFT {ttft}",
            f"ITL {itl}",
            f"{number(end.output_tokens_per_s, 1)} tokens/s",
            count(end.output_tokens, "token"),
            f"ended: {end.finish_reason or 'not told'}",
        )
    )
