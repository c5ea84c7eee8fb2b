"""Runs a search: one start and one block of load for every candidate that a round asks for."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from engine.bench import ab_block, runner
from engine.bench.ab import shared_out
from engine.bench.ab_block import Streams, Up
from engine.bench.tune_log import Figures, TuneLog
from engine.bench.values import Load, Report
from engine.core.errors import ControlError
from engine.core.tuning.search import Search, Standing
from engine.core.tuning.space import Candidate

GOALS = ("throughput", "latency")
ALL_DONE = "all rounds are done"
UNITS = {"throughput": "tokens/s", "latency": "ms a whole answer"}


class Arms(Protocol):
    """Puts one candidate under power, by its name."""

    async def ready(self, arm: str, *, fresh: bool) -> Up: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    goal: str
    load: Load
    """Of the whole machine, however many instances share it; its limits are the search's."""
    max_time_s: float | None = None
    client_pus: frozenset[int] | None = None


@dataclass
class Tuning:
    """What is measured is there to be judged at any moment, also after an interrupt."""

    candidates: Sequence[Candidate]
    wanted: Wanted
    arms: Arms
    search: Search
    on_block: Callable[[str], None] = lambda _line: None
    clock: Callable[[], float] = time.monotonic
    log: TuneLog | None = None
    kept: Figures = field(default_factory=dict)
    """Of the same search before it was broken off: they need not be measured again."""
    limited: list[str] = field(default_factory=list)
    """Why the load generator was a limit, where it was."""
    why_ended: str | None = None
    unfinished: dict[int, float | str] = field(default_factory=dict)
    """Of the round that is under way."""
    _longest_block_s: float = 0.0

    async def run(self) -> None:
        began = self.clock()
        while order := self.search.next_round():
            self.unfinished = self._kept(order)
            left = [number for number in order if number not in self.unfinished]
            if left and self._time_is_up(began, len(left)):
                return
            if self.log is not None and len(left) == len(order):
                self.log.begin(self.search.rounds + 1)
            for number in left:
                value = self.unfinished[number] = await self._measured(number)
                if self.log is not None:
                    name = str(self.candidates[number])
                    self.log.measured(self.search.rounds + 1, name, value)
            # A round that was broken off would not be fair to those who came last in it.
            self.search.record(self.unfinished)
            self.unfinished = {}
        self.why_ended = ALL_DONE

    def _kept(self, order: Sequence[int]) -> dict[int, float | str]:
        """Of a stage that only chooses, what there is; of the one that judges, whole rounds: in
        the time between, the machine may have become another."""
        kept = self.kept.get(self.search.rounds + 1, {})
        known = {one: kept[name] for one in order if (name := str(self.candidates[one])) in kept}
        return known if len(known) == len(order) or not self.search.is_final else {}

    async def _measured(self, number: int) -> float | str:
        began = self.clock()
        said = f"round {self.search.rounds + 1}: {self.candidates[number]}"
        try:
            up = await self.arms.ready(str(self.candidates[number]), fresh=True)
            report = await runner.run(
                up.targets, self._load(up), client_pus=self.wanted.client_pus
            )
        except ControlError as error:
            self.on_block(f"{said}: {error.what}: {error.why}")
            return f"{error.what}: {error.why}"
        finally:
            self._longest_block_s = max(self._longest_block_s, self.clock() - began)
        self.limited += report.client.limits
        value = value_of(report, self.wanted)
        shown = value if isinstance(value, str) else told(value, self.wanted.goal)
        self.on_block(f"{said}: {shown}")
        return value

    def _load(self, up: Up) -> Load:
        """Shared out evenly, and the same prompts for all of a round."""
        load = self.wanted.load
        streams = Streams.of(load.concurrency, load.requests, [len(up.targets)])
        whole = replace(load, concurrency=streams.in_all, requests=streams.requests)
        return replace(shared_out(whole, len(up.targets)), seed=load.seed + self.search.rounds)

    def _time_is_up(self, began: float, blocks: int) -> bool:
        limit = self.wanted.max_time_s
        if limit is None or self.clock() - began + blocks * self._longest_block_s <= limit:
            return False
        self.why_ended = f"one more round would not end within the {limit:g} s that it was given"
        return True


def value_of(report: Report, wanted: Wanted) -> float | str:
    """Larger is better; a text says why there is none.

    Throughput is that of requests within the limits, where there are any; latency is the inverse
    of the median whole answer, which must keep to them in nine cases of ten.
    """
    rows = report.targets
    errors = [row.first_error for row in rows if row.errors]
    if errors:
        return f"its requests failed: {errors[0]}"
    if not sum(row.requests for row in rows):
        return "no request ended"
    met, of = 1, 1
    if wanted.load.limits:
        good = [row.goodput for row in rows if row.goodput is not None]
        met, of = sum(one.met for one in good), sum(one.of for one in good)
        if not met or (wanted.goal == "latency" and met < 0.9 * of):
            return f"{met} of {of} requests kept to the limits"
    if wanted.goal == "throughput":
        rate = ab_block.total([row.output_tokens_per_s for row in rows])
        return "no token came" if not rate else rate * met / of
    answer_s = ab_block.pooled([row.e2e for row in rows]).p50
    return "no answer was whole" if not answer_s else 1 / answer_s


def told(value: float, goal: str) -> str:
    """With its unit."""
    if goal == "throughput":
        return f"{value:.1f} tokens/s"
    return f"{1e3 / value:.1f} ms a whole answer"


def figure(value: float | None, goal: str) -> float | None:
    """In the goal's unit."""
    if value is None:
        return None
    return round(value if goal == "throughput" else 1e3 / value, 3)


def tune_json(tuning: Tuning, refused: Mapping[str, str], layout: str | None) -> dict[str, object]:
    """The `slotdeck.tune/1` object."""
    goal = tuning.wanted.goal
    rows = [_row_json(one, tuning) for one in tuning.search.standings()]
    load = tuning.wanted.load
    limits = {f"{name}_ms": _ms(limit) for name, limit in load.limits.told().items()}
    return {
        "schema": "slotdeck.tune/1",
        "goal": goal,
        "unit": UNITS[goal],
        "better": "higher" if goal == "throughput" else "lower",
        "candidates": rows,
        "refused": [{"candidate": name, "why": why} for name, why in refused.items()],
        "rounds": tuning.search.rounds,
        "unfinished_round": {
            str(tuning.candidates[number]): value
            if isinstance(value, str)
            else figure(value, goal)
            for number, value in tuning.unfinished.items()
        },
        "log": None if tuning.log is None else str(tuning.log.path),
        "ended": tuning.why_ended,
        "client_limits": sorted(set(tuning.limited)),
        "layout": layout,
        "load": {
            "concurrency": load.concurrency,
            "input_len": load.input_len,
            "output_len": load.output_len,
            "requests": load.requests,
            "duration_s": None if load.duration_s == math.inf else load.duration_s,
            "seed": load.seed,
            "limits": limits,
        },
        "rules": RULES,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)


def _row_json(one: Standing, tuning: Tuning) -> dict[str, object]:
    candidate = tuning.candidates[one.number]
    return {
        "name": str(candidate),
        "instances": candidate.instances,
        "cores": candidate.cores,
        "reserve_cores": candidate.reserve,
        "batch": candidate.batch,
        "weight_only": candidate.weight_only,
        "value": figure(one.value, tuning.wanted.goal),
        "against_best": None if one.against_best is None else round(one.against_best, 4),
        "rounds": one.rounds,
        "plateau": one.on_plateau,
        "why": one.why,
    }


RULES = (
    "a round measures each candidate once, in random order, with engines started for it; after "
    "two rounds the slower half goes, unjudged",
    "the last four get six rounds of their own, and only those judge: one is worse if a one-sided "
    "paired t-test finds another one better, at 5 % in all; so the best of the four stays on the "
    "plateau with 95 % probability",
    "the simplest on the plateau that looks within 5 % of the best wins: fewest instances, then "
    "all of their cores, none reserved, the layout's own weights, the engine's own batch",
)
