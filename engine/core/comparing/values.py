"""The words of a comparison: arms, blocks, pairs, what is compared, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from engine.core.quantiles import MIN_SAMPLES_P90, MIN_SAMPLES_P99, Summary


class Better(StrEnum):
    LOWER = "lower"
    HIGHER = "higher"


class Verdict(StrEnum):
    """Of B against A."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference"
    """None was seen; `smallest_detectable` says which one would have been."""
    NOT_ENOUGH = "not enough"
    """Too few valid pairs, or no look is due yet."""


@dataclass(frozen=True, slots=True)
class Metric:
    """Of one unit. A ratio is formed inside one metric only, so ms never meet tokens/s."""

    name: str
    unit: str
    better: Better
    words: str
    """In a sentence, after "in"."""


def _known() -> dict[str, Metric]:
    latencies = {
        "ttft": "the time to the first token",
        "tpot": "the time per token",
        "itl": "the gap between tokens",
        "e2e": "the time of a whole answer",
    }
    rates = {
        "output_tokens_per_s": ("tokens/s", "output tokens/s"),
        "total_tokens_per_s": ("tokens/s", "total tokens/s"),
        "output_tokens_per_s_per_gpu": ("tokens/s/GPU", "tokens/s per GPU"),
        "output_tokens_per_s_per_core": ("tokens/s/core", "tokens/s per core"),
        "output_tokens_per_s_per_watt": ("tokens/s/W", "tokens/s per watt"),
    }
    known = [
        Metric(f"{name}_ms{suffix}", "ms", Better.LOWER, words + said)
        for name, words in latencies.items()
        for suffix, said in (("", ""), ("_p90", " (p90)"), ("_p99", " (p99)"))
    ]
    known += [Metric(name, unit, Better.HIGHER, words) for name, (unit, words) in rates.items()]
    return {metric.name: metric for metric in known}


METRICS: Mapping[str, Metric] = _known()
"""All that can be compared, in the order of the table. `ttft_ms` and its like are medians."""


def latency_figures(name: str, seconds: Summary) -> dict[str, float | None]:
    """A block's `ttft_ms`, `ttft_ms_p90`, `ttft_ms_p99` (name "ttft"); unknown stays None."""
    return {
        f"{name}_ms": _ms(seconds.p50),
        f"{name}_ms_p90": _ms(seconds.p90),
        f"{name}_ms_p99": _ms(seconds.p99),
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def rate_figures(
    output_tokens_per_s: float | None,
    *,
    gpus: int = 0,
    cores: int = 0,
    watts: float | None = None,
) -> dict[str, float | None]:
    """Output tokens/s, also for each GPU, core and watt that the arm takes."""
    per = {"gpu": float(gpus), "core": float(cores), "watt": watts or 0.0}
    figures = {"output_tokens_per_s": output_tokens_per_s}
    for noun, count in per.items():
        if count > 0 and output_tokens_per_s is not None:
            figures[f"output_tokens_per_s_per_{noun}"] = output_tokens_per_s / count
    return figures


@dataclass(frozen=True, slots=True)
class Arm:
    """One of the two layouts, as a person would call it: "two cards", "b.toml"."""

    name: str
    plural: bool | None = None
    """None: guessed from the first word, so that "two cards answer" and "one card answers"."""


@dataclass(frozen=True, slots=True)
class Block:
    """One arm under load for a while: one value of each metric, whatever its requests."""

    arm: str
    """ "a" or "b"; both blocks of an A/A pair say "a"."""
    started_s: float
    """Of a monotonic clock."""
    metrics: Mapping[str, float | None]
    """By the names of METRICS; None where it is not known."""
    requests: int
    """Measured ones; those of the warm-up are in no figure."""
    errors: int = 0
    first_error: str | None = None
    clocks_mhz: Mapping[str, float] = field(default_factory=dict)
    """Means over the block: {"cpu": 3400, "gpu:0": 2400}."""
    temperature_c: float | None = None
    """The hottest reading."""
    throttled: bool | None = None
    """None: this hardware does not tell."""
    client_limited: str | None = None
    """Why the load generator was the limit, or None."""

    def figure(self, metric: Metric) -> float | None:
        """None also where a percentile would rest on too few requests."""
        value = self.metrics.get(metric.name)
        if value is None or not 0 < value < float("inf"):
            return None
        return value if self.requests >= self._needs(metric) else None

    def why_missing(self, metric: Metric) -> str:
        """The reason for `figure` being None."""
        needs = self._needs(metric)
        if self.requests < needs:
            return f"it needs {needs} requests a block, one had {self.requests}"
        if self.metrics.get(metric.name) is None:
            return "it was not measured in every block"
        return "a block's value was not a positive number"

    @staticmethod
    def _needs(metric: Metric) -> int:
        if metric.name.startswith("itl_"):  # It counts gaps, and its summary has judged them.
            return 0
        if metric.name.endswith("_p90"):
            return MIN_SAMPLES_P90
        return MIN_SAMPLES_P99 if metric.name.endswith("_p99") else 0


@dataclass(frozen=True, slots=True)
class Pair:
    """Two blocks near in time, each the other's only partner."""

    a: Block
    b: Block

    @classmethod
    def of(cls, first: Block, second: Block) -> "Pair":
        """In whichever order they ran; two blocks of one arm stay as they are."""
        return cls(second, first) if (first.arm, second.arm) == ("b", "a") else cls(first, second)

    @property
    def order(self) -> str:
        """AB or BA: which ran first."""
        return "AB" if self.a.started_s <= self.b.started_s else "BA"


@dataclass(frozen=True, slots=True)
class Void:
    pair: int
    """From 1, in the order given; a block's number where runs were measured apart."""
    why: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row: one metric, B against A."""

    metric: Metric
    n: int
    """Valid pairs that have it; where measured apart, blocks of the arm with fewer."""
    a: float | None
    """Geometric means over those, so that b / a is the ratio."""
    b: float | None
    ratio: float | None
    ci95: tuple[float, float] | None
    """Around the ratio; where one may stop early, wider by what that costs."""
    verdict: Verdict
    smallest_detectable: float | None
    """0.034: a difference of 3.4 % would have been seen with 80 % probability."""
    permutation_p: float | None
    noise_floor: float | None
    """0.012: A against itself came out 1.2 % apart."""
    why: str | None
    """Why there is no figure or no difference, where the figures do not say it themselves."""

    @property
    def name(self) -> str:
        return self.metric.name

    @property
    def differs(self) -> bool:
        """It has a verdict, and that is that B is better or worse."""
        return self.verdict in (Verdict.BETTER, Verdict.WORSE)


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Answers of more than `tokens` tokens are done first on arm `longer`."""

    tokens: int
    longer: str
    between: tuple[int, int] | None = None
    """`tokens` at the ends of both intervals that lie farthest apart."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that two arms' blocks say."""

    a: Arm
    b: Arm
    comparisons: tuple[Comparison, ...]
    pairs: int
    """All that ran, the void ones too."""
    void: tuple[Void, ...]
    noise_floor: float | None
    """The largest of the family's, or None without A/A pairs."""
    break_even: BreakEven | None
    sentence: str
    stop: str | None
    """Why no further pair is needed, or None."""
    aa_pairs: int = 0
    """Of A against A; their noise is the noise floor."""
    aa_void: tuple[Void, ...] = ()
    paired: bool = True
    """Measured apart is weaker: whatever changed between the runs counts as a difference."""
    manifest: Mapping[str, object] = field(default_factory=dict)

    def row(self, name: str) -> Comparison | None:
        return next((row for row in self.comparisons if row.name == name), None)
