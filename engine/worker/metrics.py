"""Counters and histograms under the names, labels and bucket bounds of vLLM 0.32."""

import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_NEXT_TOKEN = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
_REQUEST = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
Labels = dict[str, str]
FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")


class Histogram:
    def __init__(self, name: str, help_text: str, bounds: Sequence[float]) -> None:
        self.name, self.help_text = name, help_text
        self._bounds = tuple(float(bound) for bound in bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    @property
    def mean(self) -> float | None:
        total = sum(self._counts)
        return self._sum / total if total else None

    def lines(self, labels: Labels) -> Iterator[str]:
        yield f"# HELP {self.name} {self.help_text}"
        yield f"# TYPE {self.name} histogram"
        total = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            yield f"{self.name}_bucket{_text(labels, le=bound)} {float(total)}"
        yield f"{self.name}_count{_text(labels)} {float(total)}"
        yield f"{self.name}_sum{_text(labels)} {self._sum!r}"


@dataclass
class Gauges:
    """What is true at this moment; set as a whole after each step."""

    running: int = 0
    waiting: int = 0
    kv_cache_usage: float = 0.0


class Metrics:
    """Written by the engine's thread, read by the server's; hold `lock` for either."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.gauges = Gauges()
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.prefix_cache_queries = self.prefix_cache_hits = 0
        self.refused = 0
        self.finished = dict.fromkeys(FINISHED_REASONS, 0)
        self.request_prompt_tokens = Histogram(
            "vllm:request_prompt_tokens", "Number of prefill tokens processed.", _TOKENS
        )
        self.request_generation_tokens = Histogram(
            "vllm:request_generation_tokens", "Number of generation tokens processed.", _TOKENS
        )
        self.iteration_tokens = Histogram(
            "vllm:iteration_tokens_total", "Number of tokens per engine step.", _STEP_TOKENS
        )
        self.time_to_first_token = Histogram(
            "vllm:time_to_first_token_seconds", "Time to first token in seconds.", _FIRST_TOKEN
        )
        self.inter_token_latency = Histogram(
            "vllm:inter_token_latency_seconds", "Inter-token latency in seconds.", _NEXT_TOKEN
        )
        self.time_per_output_token = Histogram(
            "vllm:request_time_per_output_token_seconds",
            "Time per output token of each request in seconds.",
            _NEXT_TOKEN,
        )
        self.e2e_latency = Histogram(
            "vllm:e2e_request_latency_seconds", "Whole time of each request in seconds.", _REQUEST
        )
        self.queue_time = Histogram(
            "vllm:request_queue_time_seconds", "Time spent waiting for a place.", _REQUEST
        )
        self.inference_time = Histogram(
            "vllm:request_inference_time_seconds", "Time spent with a place.", _REQUEST
        )
        self.prefill_time = Histogram(
            "vllm:request_prefill_time_seconds", "Time from place to first token.", _REQUEST
        )
        self.decode_time = Histogram(
            "vllm:request_decode_time_seconds", "Time from first to last token.", _REQUEST
        )

    def lines(self, labels: Labels) -> Iterator[str]:
        gauges = self.gauges
        yield from gauge(
            "vllm:num_requests_running", "Number of requests with a place.", labels, gauges.running
        )
        yield from gauge(
            "vllm:num_requests_waiting", "Number of requests that wait.", labels, gauges.waiting
        )
        yield from gauge(
            "vllm:kv_cache_usage_perc",
            "KV-cache usage. 1 means 100 percent usage.",
            labels,
            gauges.kv_cache_usage,
        )
        yield from counter(
            "vllm:prompt_tokens_total",
            "Number of prefill tokens processed.",
            labels,
            self.prompt_tokens,
        )
        yield from counter(
            "vllm:generation_tokens_total",
            "Number of generation tokens processed.",
            labels,
            self.generation_tokens,
        )
        yield from counter(
            "vllm:prefix_cache_queries_total",
            "Number of prompt tokens that were looked for in the prefix cache.",
            labels,
            self.prefix_cache_queries,
        )
        yield from counter(
            "vllm:prefix_cache_hits_total",
            "Number of prompt tokens that the prefix cache had.",
            labels,
            self.prefix_cache_hits,
        )
        yield from counter(
            "slotdeck:refused_total",
            "Number of requests refused because too many waited.",
            labels,
            self.refused,
        )
        yield "# HELP vllm:request_success_total Count of finished requests."
        yield "# TYPE vllm:request_success_total counter"
        for reason, count in self.finished.items():
            with_reason = _text(labels, finished_reason=reason)
            yield f"vllm:request_success_total{with_reason} {float(count)}"
        for histogram in vars(self).values():
            if isinstance(histogram, Histogram):
                yield from histogram.lines(labels)


def gauge(name: str, help_text: str, labels: Labels, value: float) -> Iterator[str]:
    yield from _single(name, help_text, "gauge", labels, value)


def counter(name: str, help_text: str, labels: Labels, value: float) -> Iterator[str]:
    yield from _single(name, help_text, "counter", labels, value)


def _single(name: str, help_text: str, kind: str, labels: Labels, value: float) -> Iterator[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"
    yield f"{name}{_text(labels)} {float(value)!r}"


def _text(labels: Labels, **more: str) -> str:
    """`{a="1",b="2"}` in alphabetical order, as vLLM writes it; nothing without labels."""
    if not labels and not more:
        return ""
    pairs = sorted({**labels, **more}.items())
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
