"""How often an A/B verdict is wrong where nothing differs, and how often it sees what does.

    PYTHONPATH=. python benchmarks/ab_simulation.py [--runs 3000] [--seed 1]

Sessions are made up: requests in blocks of 60, ten pairs of blocks unless said otherwise, with a
spread of 20 % from request to request and 1 % from block to block, and the trouble that a row
names. Nothing differs between the arms, so that every "better" or "worse" is wrong. The verdicts
are those of engine.core (`judged`), with one question asked; beside them are habits that are
common. Prints Markdown; one core, under two minutes as it stands.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp, fsum, log, log1p, sqrt

from engine.core.comparing.design import FAMILY, LEVEL, Design, orders
from engine.core.comparing.estimate import Estimate
from engine.core.comparing.judge import Draft, Levels, judged
from engine.core.comparing.student import normal_critical
from engine.core.comparing.values import METRICS, Verdict

REQUESTS = 60
PAIRS = 10
RESAMPLES = 400
EFFECTS = (0.01, 0.02, 0.05, 0.10)
SIZES = (6, 8, 12, 20)
SPREADS = (0.01, 0.02, 0.04)
TTFT = METRICS["ttft_ms"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """What disturbs a session; shares are of the latency."""

    name: str
    drift: Callable[[float], float] = lambda _: 0.0
    """By the share of the session that is over."""
    request_memory: float = 0.0
    """Lag-1 correlation from request to request."""
    block_sd: float = 0.01
    block_memory: float = 0.0
    heavy: bool = False
    """Student's t with 3 degrees of freedom for requests and blocks; 3 % of requests stall."""


def thermal(done: float) -> float:
    return 0.10 * (1 - exp(-4 * done))


TROUBLES = (
    Trouble("none"),
    Trouble("thermal ramp of 10 %", drift=thermal),
    Trouble("steady drift of 10 %", drift=lambda done: 0.10 * done),
    Trouble("step of 5 % half way", drift=lambda done: 0.05 * (done > 0.5)),
    Trouble("requests in AR(1), 0.9", request_memory=0.9),
    Trouble("blocks in AR(1), 0.5, of 3 %", block_sd=0.03, block_memory=0.5),
    Trouble("heavy tails", heavy=True),
    Trouble("ramp, AR(1) and heavy tails", thermal, 0.6, 0.02, 0.5, heavy=True),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """A block: the log of its median, and of its requests' logs the sum and sum of squares."""

    median: float
    total: float
    squares: float


def session(trouble: Trouble, blocks: int, coin: random.Random) -> list[Measured]:
    """One after the other in time, of two arms between which nothing differs."""
    found = []
    request = coin.gauss(0, 1)
    level = coin.gauss(0, 1)
    fresh = sqrt(1 - trouble.request_memory**2)
    fresh_block = sqrt(1 - trouble.block_memory**2)
    for block in range(blocks):
        level = trouble.block_memory * level + fresh_block * coin.gauss(0, 1)
        offset = trouble.block_sd * (level * tail(coin) if trouble.heavy else level)
        logs = []
        for place in range(REQUESTS):
            request = trouble.request_memory * request + fresh * coin.gauss(0, 1)
            noise = 0.2 * request
            if trouble.heavy:
                noise = noise * tail(coin) + (coin.random() < 0.03) * 2.0
            logs.append(trouble.drift((block + place / REQUESTS) / blocks) + offset + noise)
        found.append(
            Measured(statistics.median(logs), fsum(logs), fsum(one * one for one in logs))
        )
    return found


def tail(coin: random.Random) -> float:
    """Turns a normal value into one of Student's t with 3 degrees of freedom."""
    return 1 / sqrt(coin.gammavariate(1.5, 2.0) / 3)


def paired(blocks: Sequence[Measured], seed: int) -> list[float]:
    """The log-ratios, with the arms in the order that a design would have given them."""
    ratios = []
    for index, order in enumerate(orders(len(blocks) // 2, seed)):
        first, second = blocks[2 * index].median, blocks[2 * index + 1].median
        ratios.append(second - first if order == "AB" else first - second)
    return ratios


def verdict(log_ratios: Sequence[float], design: Design, floor: float | None = None) -> Verdict:
    """Of engine.core, of the one look that is now due."""
    draft = Draft(
        TTFT, len(log_ratios), estimate=Estimate.of_pairs(log_ratios), floor=floor or None
    )
    (row,) = judged([draft], design.family, Levels(design, len(log_ratios)))
    return row.verdict


def after_looks(log_ratios: Sequence[float], design: Design) -> tuple[Verdict, int]:
    """Stops at the first look that finds a difference; also how many pairs that took."""
    found = Verdict.NOT_ENOUGH
    for look in design.looks:
        found = verdict(log_ratios[:look], design)
        if found is not Verdict.NO_DIFFERENCE:
            return found, look
    return found, design.pairs


def differs(found: Verdict) -> bool:
    return found in (Verdict.BETTER, Verdict.WORSE)


def requests_differ(a: Sequence[Measured], b: Sequence[Measured]) -> bool:
    """Welch's test over all requests, as if they were independent."""
    count = len(a) * REQUESTS
    means, errors = [], []
    for arm in (a, b):
        total = fsum(block.total for block in arm)
        squares = fsum(block.squares for block in arm)
        means.append(total / count)
        errors.append((squares - total * total / count) / (count - 1) / count)
    return abs(means[0] - means[1]) > normal_critical(LEVEL) * sqrt(sum(errors))


def bootstrap_differs(log_ratios: Sequence[float], coin: random.Random) -> bool:
    """The percentile interval of resampled pairs."""
    count = len(log_ratios)
    means = sorted(sum(coin.choices(log_ratios, k=count)) for _ in range(RESAMPLES))
    low, high = means[RESAMPLES // 40], means[-RESAMPLES // 40 - 1]
    return low > 0 or high < 0


def plain_peeks(log_ratios: Sequence[float], looks: Sequence[int]) -> bool:
    """A plain 95 % interval at every look, stopping at the first that excludes equality."""
    for look in looks:
        estimate = Estimate.of_pairs(log_ratios[:look])
        if estimate is not None and estimate.p < LEVEL:
            return True
    return False


@dataclass(slots=True)
class Counts:
    """Wrong answers of each habit."""

    whole: int = 0
    early: int = 0
    peeks: int = 0
    bootstrap: int = 0
    apart: int = 0
    pooled: int = 0
    one_run: int = 0

    def shares(self, runs: int) -> list[float]:
        return [getattr(self, name) / runs for name in HABITS]


HABITS = {
    "whole": "ours, 10 pairs",
    "early": "ours, may stop at 6, 8",
    "peeks": "plain interval at 6, 8, 10",
    "bootstrap": "bootstrap of the pairs",
    "apart": "two runs apart, Welch of blocks",
    "pooled": "ABBA, requests pooled",
    "one_run": "one run each, requests",
}


def wrong_answers(trouble: Trouble, runs: int, seed: int) -> Counts:
    counts = Counts()
    at_end = replace(Design.of(PAIRS, early=False), family=("ttft_ms",))
    in_steps = replace(Design.of(PAIRS), family=("ttft_ms",))
    for run in range(runs):
        coin = random.Random(f"{seed} {trouble.name} {run}")
        blocks = session(trouble, 2 * PAIRS, coin)
        ratios = paired(blocks, coin.getrandbits(64))
        counts.whole += differs(verdict(ratios, at_end))
        counts.early += differs(after_looks(ratios, in_steps)[0])
        counts.peeks += plain_peeks(ratios, in_steps.looks)
        counts.bootstrap += bootstrap_differs(ratios, coin)
        first, second = blocks[:PAIRS], blocks[PAIRS:]
        welch = Estimate.of_runs([one.median for one in first], [one.median for one in second])
        counts.apart += welch.p < LEVEL
        counts.pooled += requests_differ(*dealt(blocks, coin.getrandbits(64)))
        counts.one_run += requests_differ(first, second)
    return counts


def dealt(blocks: Sequence[Measured], seed: int) -> tuple[list[Measured], list[Measured]]:
    """To two arms, in ABBA order."""
    a: list[Measured] = []
    b: list[Measured] = []
    for index, order in enumerate(orders(len(blocks) // 2, seed)):
        first, second = blocks[2 * index : 2 * index + 2]
        (a if order == "AB" else b).append(first)
        (b if order == "AB" else a).append(second)
    return a, b


def power_row(
    pairs: int, spread: float, effect: float, runs: int, seed: int
) -> tuple[float, float, float]:
    """Shares of right verdicts at the end and with early stops, and the mean number of pairs."""
    at_end = replace(Design.of(pairs, early=False), family=("ttft_ms",))
    in_steps = replace(Design.of(pairs), family=("ttft_ms",))
    right = right_early = used = 0
    for log_ratios in drawn(pairs, spread, log1p(effect), runs, seed):
        right += verdict(log_ratios, at_end) is Verdict.WORSE
        found, after = after_looks(log_ratios, in_steps)
        right_early += found is Verdict.WORSE
        used += after
    return right / runs, right_early / runs, used / runs


def drawn(pairs: int, spread: float, shift: float, runs: int, seed: int) -> Iterator[list[float]]:
    """Log-ratios with this spread, and the step of a thermal ramp inside each pair."""
    for run in range(runs):
        coin = random.Random(f"{seed} {pairs} {spread} {run}")
        ratios = []
        for index, order in enumerate(orders(pairs, coin.getrandbits(64))):
            step = thermal((2 * index + 1.5) / 2 / pairs) - thermal((2 * index + 0.5) / 2 / pairs)
            ratios.append(shift + coin.gauss(0, spread) + (step if order == "AB" else -step))
        yield ratios


def family_wrong(runs: int, seed: int) -> tuple[float, float]:
    """Any of three questions answered wrongly: by Holm's steps, and each for itself."""
    design = Design.of(PAIRS)
    together = alone = 0
    for run in range(runs):
        coin = random.Random(f"{seed} family {run}")
        logs: dict[str, list[float]] = {name: [] for name in FAMILY}
        for _ in range(PAIRS):
            writing = coin.gauss(0, 0.02)
            logs["ttft_ms"].append(coin.gauss(0, 0.04))
            logs["tpot_ms"].append(writing)
            logs["output_tokens_per_s"].append(-0.8 * writing + coin.gauss(0, 0.012))
        for asked, add in ((design, 1), (replace(design, family=()), 0)):
            for look in design.looks:
                drafts = [
                    Draft(METRICS[name], look, estimate=Estimate.of_pairs(values[:look]))
                    for name, values in logs.items()
                ]
                if any(row.differs for row in judged(drafts, asked.family, Levels(asked, look))):
                    together += add
                    alone += 1 - add
                    break
    return together / runs, alone / runs


def floor_effect(runs: int, seed: int) -> list[tuple[str, float, float]]:
    """False positives and power for 5 % with and without four A/A pairs, and with lucky starts.

    A start of an engine may be off by 1 % for as long as it runs. Where every arm is started once,
    no number of pairs can see that.
    """
    design = replace(Design.of(PAIRS, early=False), family=("ttft_ms",))
    rows = []
    for name, luck, each_pair in (
        ("starts alike", 0.0, False),
        ("each arm started once, off by 1 %", 0.01, False),
        ("both arms started for every pair, off by 1 %", 0.01, True),
    ):
        counts = {False: [0, 0], True: [0, 0]}
        for run in range(runs):
            coin = random.Random(f"{seed} floor {luck} {run}")
            ratios = started(PAIRS, luck, coin, each_pair=each_pair)
            aa = Estimate.of_pairs(started(4, luck, coin, each_pair=each_pair))
            assert aa is not None
            floor = max(abs(aa.mean), aa.error)
            for which, shift in enumerate((0.0, log(1.05))):
                seen = [one + shift for one in ratios]
                for with_floor, tally in counts.items():
                    tally[which] += differs(verdict(seen, design, floor if with_floor else None))
        for with_floor, tally in counts.items():
            said = "4 A/A pairs" if with_floor else "no A/A"
            rows.append((f"{name}; {said}", tally[0] / runs, tally[1] / runs))
    return rows


def started(pairs: int, luck: float, coin: random.Random, *, each_pair: bool) -> list[float]:
    """Log-ratios of 2 % spread, and of two starts: the same ones throughout, or new ones."""
    offset = coin.gauss(0, luck) - coin.gauss(0, luck)
    ratios = []
    for _ in range(pairs):
        if each_pair:
            offset = coin.gauss(0, luck) - coin.gauss(0, luck)
        ratios.append(offset + coin.gauss(0, 0.02))
    return ratios


def percent(share: float, digits: int = 1) -> str:
    return f"{share * 100:.{digits}f} %"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print("|", " | ".join(head), "|")
    print("|" + "---|" * len(head))
    for row in rows:
        print("|", " | ".join(row), "|", flush=True)
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3000, metavar="N", help="of each row (3000)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of all draws (1)")
    asked = parser.parse_args()
    runs, seed = asked.runs, asked.seed
    begun = time.perf_counter()
    error = percent(sqrt(0.05 * 0.95 / runs), 2)
    print(f"{runs} sessions a row; the standard error of a 5 % in it is {error}.\n")

    print("Wrong verdicts where nothing differs\n")
    rows = [
        [trouble.name, *map(percent, wrong_answers(trouble, runs, seed).shares(runs))]
        for trouble in TROUBLES
    ]
    table(["trouble", *HABITS.values()], rows)

    print("Differences seen (at the end; with early stops; mean pairs used then)\n")
    for spread in SPREADS:
        rows = []
        for effect in EFFECTS:
            cells = []
            for pairs in SIZES:
                end, early, used = power_row(pairs, spread, effect, runs, seed)
                cells.append(f"{percent(end, 0)}; {percent(early, 0)}; {used:.1f}")
            rows.append([percent(effect, 0), *cells])
        table([f"spread {percent(spread, 0)}", *(f"{n} pairs" for n in SIZES)], rows)

    print("Any of three questions answered wrongly, with early stops\n")
    holm, alone = family_wrong(runs, seed)
    table(["as a family (Holm)", "each for itself"], [[percent(holm), percent(alone)]])

    print("The noise floor, 10 pairs of 2 % spread\n")
    rows = [[name, percent(no), percent(yes)] for name, no, yes in floor_effect(runs, seed)]
    table(["", "wrong where equal", "5 % seen"], rows)
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
