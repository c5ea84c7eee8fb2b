"""Made-up blocks and pairs for the tests of comparisons."""

from collections.abc import Mapping, Sequence
from math import exp

from engine.core.comparing.values import Arm, Block, Pair

A, B = Arm("one card"), Arm("two cards")
ONE_CARD = {"ttft_ms": 100.48, "tpot_ms": 15.19}
TWO_CARDS = {"ttft_ms": 69.22, "tpot_ms": 21.78}


def block(
    arm: str,
    metrics: Mapping[str, float | None],
    *,
    at: float = 0.0,
    requests: int = 100,
    errors: int = 0,
    clocks_mhz: Mapping[str, float] | None = None,
    throttled: bool | None = None,
    temperature_c: float | None = None,
    client_limited: str | None = None,
) -> Block:
    return Block(
        arm=arm,
        started_s=at,
        metrics=metrics,
        requests=requests,
        errors=errors,
        clocks_mhz=clocks_mhz or {},
        throttled=throttled,
        temperature_c=temperature_c,
        client_limited=client_limited,
    )


def pair(a: Mapping[str, float | None], b: Mapping[str, float | None], at: float = 0.0) -> Pair:
    return Pair(block("a", a, at=at), block("b", b, at=at + 1))


def swapped(pairs: Sequence[Pair]) -> list[Pair]:
    return [Pair(one.b, one.a) for one in pairs]


def pairs_of(
    log_ratios: Sequence[float], name: str = "ttft_ms", *, base: float = 100.0
) -> list[Pair]:
    """One metric whose paired log-ratios are these."""
    return [
        pair({name: base * (1 + i / 50)}, {name: base * (1 + i / 50) * exp(one)}, at=2.0 * i)
        for i, one in enumerate(log_ratios)
    ]


WOBBLE = (0.004, -0.007, 0.001, 0.006, -0.003, -0.001, 0.005, -0.005, 0.002, -0.002)
"""Sums to nothing."""


def published(count: int = 10) -> list[Pair]:
    """The published pair of figures, each pair a little off."""
    return [
        pair(
            {name: value * exp(wobble / 2) for name, value in ONE_CARD.items()},
            {name: value * exp(-wobble / 2) for name, value in TWO_CARDS.items()},
            at=2.0 * index,
        )
        for index, wobble in enumerate(WOBBLE[:count])
    ]
