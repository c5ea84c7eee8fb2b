"""A comparison that tells what a test says, and remembers what it was told."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from engine.core.comparing.telling import (
    ArmPlanned,
    Deciding,
    Ended,
    Judged,
    Measuring,
    Paired,
    Planned,
    PuttingBack,
    Ratio,
    Row,
    Told,
)

ONE, TWO = "x on core:0", "x on core:1"
FILE = "/state/before-ab.toml"
PLANNED = Planned(
    arms=(
        ArmPlanned(ONE, ("x on core:0: PU 0, memory bind 0",)),
        ArmPlanned(TWO, ("x-b on core:1: PU 1, memory bind 0",), ("y",)),
    ),
    comparisons=((ONE, TWO),),
    stops=("x", "y"),
    losses=("x: 2 requests in flight have 10 s to finish",),
    notes=("they fit side by side: both stay loaded and take turns",),
    starts=2,
    pairs=10,
    aa_pairs=4,
    streams=1,
    most_s=900.0,
    start_most_s=600.0,
    file=FILE,
)
BLOCK = Measuring(1, "pair 3, B", "b", "measuring", 3.0)


def ratio(name: str, unit: str, a: float, b: float, wide: float) -> Ratio:
    lower = "lower" if unit == "ms" else "higher"
    ends = (b / a / wide, b / a * wide)
    return Ratio(name, unit, lower, 2, a, b, b / a, ends, 0.012)


def paired(number: int, *, wide: float = 1.05, is_aa: bool = False) -> Paired:
    rows = (
        ratio("ttft_ms", "ms", 100.48, 69.22, wide),
        ratio("tpot_ms", "ms", 15.19, 21.78, wide),
        ratio("itl_ms", "ms", 15.0, 21.5, wide),
        ratio("output_tokens_per_s", "tokens/s", 65.2, 45.7, wide),
        ratio("output_tokens_per_s_per_core", "tokens/s/core", 65.2, 45.7, wide),
    )
    of = 4 if is_aa else 10
    order = "AB" if number % 2 else "BA"
    return Paired(1, is_aa, number, of, order, 0 if is_aa else number, None, rows, 30.0, 240.0)


SENTENCE = f"{TWO} answers 31 % sooner and writes 43 % slower."
JUDGED = Judged(
    comparison=1,
    sentence=SENTENCE,
    metrics=(
        Row("ttft_ms", "ms", "lower", 100.48, 69.22, 0.689, (0.66, 0.72), "better"),
        Row("tpot_ms", "ms", "lower", 15.19, 21.78, 1.434, (1.4, 1.47), "worse"),
        Row("ttft_ms_p99", "ms", "lower", None, None, None, None, "not enough"),
        Row("output_tokens_per_s", "tokens/s", "higher", 65.2, 45.7, 0.7, (0.68, 0.73), "worse"),
    ),
    pairs=6,
    void=0,
    noise_floor=0.012,
    stop="every question is answered after 6 valid pairs",
    saved="/state/ab/one.json",
)
MIXED = Deciding(None, f"{TWO} is better in this and worse in that", 600.0)
WON = Deciding(TWO, f"{TWO} is better in this and worse in nothing", 600.0)
BACK = (PuttingBack(None, ("x", "y"), FILE), Ended(None, interrupted=False))
KEPT = (PuttingBack(TWO, ("x",), FILE), Ended(TWO, interrupted=False))


class PlayedComparison:
    """One at a time; a new one begins where the panel starts one."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.orders: list[str] = []
        self.gone = 0
        self._lines: asyncio.Queue[Told | None] = asyncio.Queue()

    def __call__(self, words: Sequence[str]) -> "PlayedComparison":
        self.asked.append(tuple(words))
        self._lines = asyncio.Queue()
        self.tell(PLANNED)
        return self

    def tell(self, *lines: Told) -> None:
        for line in lines:
            self._lines.put_nowait(line)
            if isinstance(line, Ended):
                self._lines.put_nowait(None)

    async def told(self) -> AsyncIterator[Told]:
        lines = self._lines
        try:
            while (line := await lines.get()) is not None:
                yield line
        except (GeneratorExit, asyncio.CancelledError):
            self.let_go()
            raise

    def say(self, order: str) -> None:
        self.orders.append(order)

    def let_go(self) -> None:
        self.gone += 1
