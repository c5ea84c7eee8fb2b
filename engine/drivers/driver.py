"""What slotdeck asks of a driver: our file that knows one engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from engine.core.command import Command
from engine.core.layout import Instance, Scalar
from engine.core.metrics import MetricNames
from engine.core.placement import Placement

Device = Literal["cpu", "gpu", "any"]
DTYPES = ("auto", "float32", "float16", "bfloat16")
"""All values of a layout's `dtype`."""

VLLM_METRICS = MetricNames(
    prompt_tokens=("vllm:prompt_tokens_total",),
    output_tokens=("vllm:generation_tokens_total",),
    running=("vllm:num_requests_running",),
    waiting=("vllm:num_requests_waiting",),
    # The second name of each pair is the one of vLLM before 0.10.
    kv_cache_used=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    ttft_s=("vllm:time_to_first_token_seconds",),
    itl_s=("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
)
"""vLLM's names, which many OpenAI-compatible servers share (captured from 0.32 and 0.6.6)."""


@dataclass(frozen=True, slots=True)
class Order:
    """Everything that a driver needs to write a command line."""

    instance: Instance
    placement: Placement
    model: str
    """Path or hub id for the engine's command line."""
    served_name: str
    """What clients call the model."""
    python: str
    """The engine's own Python interpreter."""
    worker: str
    """Path of our worker program."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why a setting cannot stand beside our placement, and what to write instead."""

    why: str
    do: str


class Driver(Protocol):
    """One engine as data, its patience included, and the command line for a placement."""

    name: str
    device: Device
    """What it computes on; `any` follows the slot: GPUs where it has some, else CPUs."""
    tensor_parallel: bool
    """Whether it can split one model over several GPUs or NUMA nodes."""
    memory_share: float | None
    """The part of a GPU's memory that it takes when the layout does not say; None: no GPU, or
    we do not know."""
    dtypes: tuple[str, ...]
    """The layout's `dtype` values that it has."""
    refused_args: Mapping[str, Conflict]
    """Flags, without dashes, that would undo the placement or have a key of their own."""
    refused_env: Mapping[str, Conflict]
    """Variables that would undo the placement."""
    metric_names: MetricNames
    health_path: str
    reserve_cores: int
    """Cores that it wants left free when the layout does not say."""
    ready_timeout_s: float
    stop_grace_s: float
    needs_model: bool
    """Whether `model` must name something that exists here."""
    api_key_variable: str | None
    """The variable from which the engine takes the API key that it will ask for."""
    weight_only: tuple[str, ...]
    """The low-bit forms of weights that it has; the first is what `none` means."""

    def command(self, order: Order) -> Command:
        """The exact command line and environment for this placement."""
        ...


def flags(arguments: Mapping[str, Scalar]) -> tuple[str, ...]:
    """A layout's `args` as engine flags: `max-model-len = 2048` is `--max-model-len 2048`."""
    words: list[str] = []
    for name, value in arguments.items():
        if value is False:
            continue
        words.append(f"--{name}")
        if value is not True:
            words.append(str(value))
    return tuple(words)
