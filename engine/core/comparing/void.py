"""Which pairs do not count, and why: decided by how a block ran, never by what it measured.

1. a block with an error, or with no request: an engine that fails answers fast
2. a block during which the load generator was the limit: it measured itself
3. a block during which the hardware throttled
4. a clock that fell against its partner's, beyond what is usual between the two arms
"""

from collections.abc import Sequence

from engine.core.comparing.values import Block, Pair, Void
from engine.core.quantiles import percentile

CLOCK_DROP = 0.05
"""An arm that drives its cores harder runs them slower in every pair, and a warm room slows both
blocks of a pair: neither is a fault. What stands out from the other pairs by this share is."""


def sift(
    pairs: Sequence[Pair], names: tuple[str, str] = ("A", "B")
) -> tuple[list[Pair], tuple[Void, ...]]:
    """The pairs that count, in their order, and the void ones."""
    why: dict[int, str] = {}
    for index, pair in enumerate(pairs):
        reasons = [
            f"{name}: {reason}"
            for name, block in zip(names, (pair.a, pair.b), strict=True)
            if (reason := why_void(block)) is not None
        ]
        if reasons:
            why[index] = "; ".join(reasons)
    sound = [index for index in range(len(pairs)) if index not in why]
    for index, reason in _clock_drops([(index, pairs[index]) for index in sound], names):
        why.setdefault(index, reason)
    valid = [pair for index, pair in enumerate(pairs) if index not in why]
    return valid, tuple(Void(index + 1, why[index]) for index in sorted(why))


def why_void(block: Block) -> str | None:
    """The first reason in the order above, or None."""
    if block.errors:
        counted = "1 error" if block.errors == 1 else f"{block.errors} errors"
        return counted if block.first_error is None else f"{counted}, first {block.first_error}"
    if not block.requests:
        return "no request was finished"
    if block.client_limited is not None:
        return f"the client was the limit: {block.client_limited}"
    if block.throttled:
        heat = "" if block.temperature_c is None else f" at {block.temperature_c:.0f} °C"
        return f"throttled{heat}"
    return None


def _clock_drops(
    pairs: Sequence[tuple[int, Pair]], names: tuple[str, str]
) -> list[tuple[int, str]]:
    drops = []
    devices = {name for _, pair in pairs for name in pair.a.clocks_mhz}
    for device in sorted(devices):
        shares = [
            (index, pair.b.clocks_mhz[device] / pair.a.clocks_mhz[device])
            for index, pair in pairs
            if pair.a.clocks_mhz.get(device) and pair.b.clocks_mhz.get(device)
        ]
        usual = percentile(sorted(share for _, share in shares), 0.5)
        if usual is None:
            continue
        for index, share in shares:
            fell = min(share / usual, usual / share)
            if fell < 1 - CLOCK_DROP:
                arm = names[0] if share > usual else names[1]
                drops.append(
                    (index, f"{arm}: the {device} clock fell {1 - fell:.0%} against its partner")
                )
    return drops
