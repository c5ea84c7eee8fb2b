"""Runs a comparison: A against itself first, then pairs of blocks in the design's order.

What it decides is when to put which arm under which load; starting and stopping engines is the
business of the `Arms` that it is given, statistics that of `engine.core.compare`.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

from engine.bench import ab_texts
from engine.bench.ab_block import POOLED, Streams, Up, measure
from engine.bench.ab_clocks import GpuReadings
from engine.bench.ab_texts import Texts
from engine.bench.values import Load, Progress
from engine.core.compare import compare
from engine.core.comparing.design import Design, orders
from engine.core.comparing.values import Arm, Block, Outcome, Pair
from engine.core.comparing.void import sift
from engine.core.errors import EngineUnreachable

AA_PAIRS = 4
"""Of A against itself, before the pairs."""


class Arms(Protocol):
    """Puts arms under power; "a" and "b" are their names here."""

    async def ready(self, arm: str, *, fresh: bool) -> Up:
        """That arm, ready for load; `fresh` asks for engines that have served nothing yet."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What does not change during a comparison."""

    a: Arm
    b: Arm
    design: Design
    load: Load
    """Of a whole arm: its streams and requests are shared out over the instances."""
    aa_pairs: int = AA_PAIRS
    restart: bool = False
    """Every block gets engines that were started for it."""
    max_time_s: float | None = None
    metrics: tuple[str, ...] = ()
    """Only these; empty: all that there are."""
    client_pus: frozenset[int] | None = None


@dataclass
class Session:
    """Measures until there is an answer; what it has is there to be judged at any moment."""

    asked: Asked
    arms: Arms
    on_pair: Callable[["Session", str], None] = lambda _session, _label: None
    on_block: Callable[[str, Progress], None] = lambda _label, _progress: None
    read_gpus: GpuReadings | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    """For the manifest: placements, versions, whatever the caller knows."""
    aa: list[Pair] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    texts: Texts | None = None
    why_ended: str | None = None
    clock: Callable[[], float] = time.monotonic
    _answers: dict[str, ab_texts.Answers] = field(default_factory=dict)
    _seeds: Iterator[int] = field(default_factory=itertools.count)
    _started: dict[str, object] = field(default_factory=dict)
    _served: dict[str, list[str]] = field(default_factory=dict)
    _longest_pair_s: float = 0.0
    _began_s: float = 0.0

    async def run(self) -> None:
        """Until the design is answered or the time is up."""
        design, began = self.asked.design, self.clock()
        self._began_s = began
        self._seeds = itertools.count(self.asked.load.seed)
        for number in range(self.asked.aa_pairs):
            if self._time_is_up(began):
                return
            began_pair = self.clock()
            first = await self._block("a", f"A/A {number + 1}, first")
            second = await self._block("a", f"A/A {number + 1}, second")
            self.aa.append(Pair(first, second))
            self._timed(began_pair)
            self.on_pair(self, f"A/A {number + 1}")
        for number, order in enumerate(orders(2 * design.pairs, design.seed)):
            if self._time_is_up(began):
                return
            began_pair, seed = self.clock(), next(self._seeds)
            blocks = [
                await self._block(arm.lower(), f"pair {number + 1}, {arm}", seed) for arm in order
            ]
            self.pairs.append(Pair.of(*blocks))
            self._timed(began_pair)
            self.on_pair(self, f"pair {number + 1}")
            self.why_ended = self.outcome().stop
            if self.why_ended is not None:
                return

    def left_s(self) -> float:
        """At most, from here on: every pair may take as long as the longest one so far."""
        valid = len(sift(self.pairs)[0])
        pairs = self.asked.design.pairs - valid + self.asked.aa_pairs - len(self.aa)
        left = max(0, pairs) * self._longest_pair_s
        limit = self.asked.max_time_s
        if limit is None:
            return left
        return max(0.0, min(left, limit - (self.clock() - self._began_s)))

    def outcome(self, *, final: bool = False) -> Outcome:
        """The verdicts so far; `final` says that nothing more will come."""
        return compare(
            asked_for(self.pairs, self.asked.metrics),
            a=self.asked.a,
            b=self.asked.b,
            design=self.asked.design,
            aa=asked_for(self.aa, self.asked.metrics),
            final=final,
            manifest=self.manifest(),
        )

    def manifest(self) -> dict[str, object]:
        """What a reader needs to repeat it; the figures of each block are in the saved file."""
        load = asdict(self.asked.load)
        return {
            **self.facts,
            **self._started,
            "served": dict(self._served),
            "load": load,
            "seeds": "each pair its own from load.seed on, one for both blocks; each A/A block "
            "its own, because a prefix cache would know the prompts of the one before",
            "pooled": POOLED,
            "restart_per_pair": self.asked.restart,
            "client_pus": None if self.asked.client_pus is None else sorted(self.asked.client_pus),
            "clocks_mhz": clocks(self.aa, self.pairs),
        }

    async def _block(self, arm: str, label: str, seed: int | None = None) -> Block:
        up = await self.arms.ready(arm, fresh=self.asked.restart)
        await self._read_texts(arm, up)
        load = shared_out(self.asked.load, len(up.targets))
        block, report = await measure(
            arm,
            up,
            replace(load, seed=next(self._seeds) if seed is None else seed),
            client_pus=self.asked.client_pus,
            read_gpus=self.read_gpus,
            on_progress=lambda progress: self.on_block(label, progress),
        )
        facts = report.manifest
        keys = ("started_at", "slotdeck", "python", "event_loop", "cpu_model", "cpus")
        self._started = self._started or {key: facts[key] for key in keys}
        self._served[arm] = sorted({one.model for one in report.targets if one.model})
        return block

    async def _read_texts(self, arm: str, up: Up) -> None:
        """Once of each arm, before its first block; where they differ, of A once more."""
        known, texts = self._answers.get(arm), self.texts
        doubted = texts is not None and bool(texts.differing) and texts.steady is None
        if (texts is not None and texts.missing) or (known and not (arm == "a" and doubted)):
            return
        try:
            answers = await ab_texts.answers(up.targets[0])
        except EngineUnreachable as error:
            self.texts = texts if known else Texts(0, 0, missing=f"{error.what}: {error.why}")
            return
        if known and texts is not None:
            self.texts = replace(texts, steady=answers == known)
            return
        self._answers[arm] = answers
        if len(self._answers) == 2:
            self.texts = ab_texts.compared(self._answers["a"], self._answers["b"])

    def _timed(self, began: float) -> None:
        self._longest_pair_s = max(self._longest_pair_s, self.clock() - began)

    def _time_is_up(self, began: float) -> bool:
        limit = self.asked.max_time_s
        if limit is None or self.clock() - began + self._longest_pair_s <= limit:
            return False
        self.why_ended = f"one more pair would not end within the {limit:g} s that it was given"
        return True


def shared_out(load: Load, instances: int) -> Load:
    """An arm's load for each of its instances."""
    requests = None if load.requests is None else max(1, load.requests // instances)
    streams = max(1, load.concurrency // instances)
    return replace(load, concurrency=streams, requests=requests)


def even_load(load: Load, instances: Sequence[int]) -> Load:
    """The smallest load from this one on that arms of so many instances can share out evenly."""
    streams = Streams.of(load.concurrency, load.requests, instances)
    return replace(load, concurrency=streams.in_all, requests=streams.requests)


def asked_for(pairs: Sequence[Pair], metrics: Sequence[str]) -> list[Pair]:
    """The pairs with only these metrics; without any named, as they are."""
    if not metrics:
        return list(pairs)

    def fewer(block: Block) -> Block:
        return replace(block, metrics={name: block.metrics.get(name) for name in metrics})

    return [Pair(fewer(pair.a), fewer(pair.b)) for pair in pairs]


def clocks(aa: Sequence[Pair], pairs: Sequence[Pair]) -> dict[str, dict[str, float]] | None:
    """By arm and device the mean over its blocks; None where this machine tells of none."""
    blocks = [block for pair in (*aa, *pairs) for block in (pair.a, pair.b)]
    found: dict[str, dict[str, float]] = {}
    for arm in ("a", "b"):
        mine = [block.clocks_mhz for block in blocks if block.arm == arm]
        devices = {device for one in mine for device in one}
        means = {
            device: round(sum(values) / len(values), 1)
            for device in sorted(devices)
            if (values := [one[device] for one in mine if device in one])
        }
        if means:
            found[arm] = means
    return found or None
