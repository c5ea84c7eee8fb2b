"""An engine's Prometheus text reduced to what the panel shows: counters, gauges, histograms."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf


@dataclass(frozen=True, slots=True)
class MetricNames:
    """What one engine calls the things that we show; the first name that is present counts."""

    prompt_tokens: tuple[str, ...]
    output_tokens: tuple[str, ...]
    running: tuple[str, ...]
    waiting: tuple[str, ...]
    kv_cache_used: tuple[str, ...]
    ttft_s: tuple[str, ...]
    """Histogram, seconds."""
    itl_s: tuple[str, ...]
    """Histogram, seconds."""

    def scalars(self) -> frozenset[str]:
        """Names of counters and gauges."""
        return frozenset(
            self.prompt_tokens
            + self.output_tokens
            + self.running
            + self.waiting
            + self.kv_cache_used
        )

    def histograms(self) -> frozenset[str]:
        """Names of histograms, without `_bucket`."""
        return frozenset(self.ttft_s + self.itl_s)


@dataclass(frozen=True, slots=True)
class Scrape:
    """One reading of /metrics; label sets (data-parallel engines) are summed, shares averaged."""

    at: float
    """Seconds of the reader's monotonic clock."""
    scalars: Mapping[str, float]
    buckets: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    """Per histogram: upper bound in seconds -> cumulative count."""


_LINE = re.compile(
    # A label's value may hold braces and commas, and quotes after a backslash.
    r'([A-Za-z_:][\w:]*)(?:\{((?:[^"{}]|"(?:[^"\\]|\\.)*")*)\})?\s+(\S+)',
    re.ASCII,
)
_BOUND = re.compile(r'(?:^|,)\s*le\s*=\s*"([^"]*)"')
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def parse_metrics(text: str, names: MetricNames, *, at: float) -> Scrape:
    """Pick the wanted families out of Prometheus text; a general parser costs 35 times as much.

    Lines that cannot be read are skipped: an engine's oddity must not blind the panel.
    """
    buckets_wanted = {f"{name}_bucket": name for name in names.histograms()}
    wanted = names.scalars() | buckets_wanted.keys()
    seen: dict[str, list[float]] = {}
    buckets: dict[str, dict[float, float]] = {}
    for line in text.split("\n"):
        # The cheap question first: most lines are of families that nobody asked for.
        name = line.partition("{")[0].partition(" ")[0]
        if name not in wanted:
            continue
        parts = _LINE.match(line)
        value = _number(parts[3]) if parts else None
        if parts is None or value is None or abs(value) == inf:
            continue
        histogram = buckets_wanted.get(name)
        if histogram is None:
            seen.setdefault(name, []).append(value)
        elif (bound := _bound(parts[2] or "")) is not None:
            counts = buckets.setdefault(histogram, {})
            counts[bound] = counts.get(bound, 0.0) + value
    # A share of each data-parallel engine's own cache: together they are as full as the mean.
    scalars = {
        name: sum(values) / len(values) if name in names.kv_cache_used else sum(values)
        for name, values in seen.items()
    }
    return Scrape(at, scalars, buckets)


def _bound(labels: str) -> float | None:
    plain = _BOUND.search(labels)
    before = labels[: plain.start()] if plain else ""
    if before.count('"') % 2 or "\\" in before:
        # The words `,le="` may be in another label's value: look only where labels begin.
        at = 0
        for quoted in _QUOTED.finditer(labels):
            if labels[at : quoted.start()].strip(", \t").rstrip("= \t") == "le":
                return _number(quoted[0][1:-1])
            at = quoted.end()
        return None
    return _number(plain[1]) if plain else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    # NaN is "not known"; Python's underscores are nobody's numbers.
    return value if value == value and "_" not in text else None


def first_of(scrape: Scrape, names: tuple[str, ...]) -> float | None:
    """The value of the first name that the engine has."""
    return next((scrape.scalars[name] for name in names if name in scrape.scalars), None)


def rate(before: Scrape, after: Scrape, names: tuple[str, ...]) -> float | None:
    """A counter's growth per second; None when it went back (a restart) or no time passed."""
    first, last = first_of(before, names), first_of(after, names)
    elapsed = after.at - before.at
    if first is None or last is None or elapsed <= 0 or last < first:
        return None
    return (last - first) / elapsed


def quantile(
    before: Scrape | None, after: Scrape, names: tuple[str, ...], share: float
) -> float | None:
    """A quantile in seconds of what was observed between two scrapes; None without samples.

    Linear inside the bucket, as Prometheus' histogram_quantile; observations beyond the last
    finite bound count as that bound, so the true value may be larger.
    """
    name = next((name for name in names if name in after.buckets), None)
    if name is None:
        return None
    old = before.buckets.get(name, {}) if before else {}
    bounds = sorted(after.buckets[name])
    counts = [after.buckets[name][bound] - old.get(bound, 0.0) for bound in bounds]
    if not counts or counts[-1] <= 0 or min(counts) < 0:
        return None
    target = share * counts[-1]
    low_bound, low_count = 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if count >= target and count > low_count:
            if bound == inf:
                return low_bound
            part = (target - low_count) / (count - low_count)
            # The sum can pass the bound by its last bit.
            return min(bound, low_bound + (bound - low_bound) * part)
        low_bound, low_count = (low_bound if bound == inf else bound), count
    return low_bound
