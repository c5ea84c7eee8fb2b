"""What slotdeck asks of a driver: our file that knows one engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, Protocol

from engine.core.command import Command
from engine.core.cpuset import CpuSet
from engine.core.errors import LayoutError
from engine.core.layout import Instance
from engine.core.metrics import MetricNames
from engine.core.placement import Placement
from engine.core.topology import Gpu
from engine.drivers.flags import plain_name

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
    """Everything that a driver needs to write a command line; what it is not told is unknown."""

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
    cards: tuple[Gpu, ...] = ()
    """The placement's GPUs."""
    gpu_mask: str | None = None
    """ZE_AFFINITY_MASK (see level_zero.affinity_mask); None: the GPUs' own indexes."""
    nodes: tuple[CpuSet, ...] = ()
    """The placement's PUs by NUMA node, in the order of the nodes."""
    kv_bytes: int | None = None
    """What the KV cache needs with every sequence at full length."""
    cpu_model: str | None = None
    """`model name` of /proc/cpuinfo."""
    cpu_flags: frozenset[str] | None = None
    """`flags` of /proc/cpuinfo."""
    path: str = ""
    """PATH that the engine would inherit."""
    has_tokenizer: bool = True
    """False where the model's directory is known to hold none."""

    @property
    def has_local_model(self) -> bool:
        """Whether the model is a directory here, so that nothing needs to be downloaded."""
        return self.model.startswith("/")


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
    framework_bytes: int | None
    """What its processes take on CPUs beside weights, KV cache and activations, as measured; None:
    as sizing has it."""
    binds_threads: bool
    """Whether it binds its computing threads to the list that we give it: its other processes then
    share the slot's reserved cores."""
    ready_timeout_s: float
    stop_grace_s: float
    needs_model: bool
    """Whether `model` must name something: a directory here, or a hub id where it `downloads`."""
    downloads: bool
    """Whether it takes a hub id and fetches the model itself."""
    api_key_variable: str | None
    """The variable from which the engine takes the API key that it will ask for."""
    weight_only: tuple[str, ...]
    """The low-bit forms of weights that it has; the first is what `none` means."""

    dummy_weights: bool
    """Whether it can run on made-up weights in the shape of a config.json."""

    def command(self, order: Order) -> Command:
        """The exact command line and environment for this placement. Raises LayoutError where
        the layout asks for what this engine cannot be given."""
        ...


def check_settings(
    driver: Driver, instance: Instance, *, aliases: Mapping[str, str] | None = None
) -> None:
    """Raises LayoutError for a dtype that the engine does not have, and for the first flag or
    variable that cannot stand beside our placement."""
    if instance.dtype not in driver.dtypes:
        raise LayoutError(
            what=f"Instance {instance.name} cannot have dtype = {instance.dtype!r}",
            why=f"the {driver.name} engine has: {', '.join(driver.dtypes)}",
            do="Correct dtype, or choose another engine",
        )
    if instance.weights == "dummy" and not driver.dummy_weights:
        raise LayoutError(
            what=f'Instance {instance.name} cannot have weights = "dummy"',
            why=f"the {driver.name} engine loads real weights only",
            do="Leave weights out, or use torch, ipex, vllm-cpu or vllm-xpu",
        )
    found = [
        (f"args.{written}", driver.refused_args[name])
        for written in instance.args
        if (name := plain_name(written, aliases or {}).removeprefix("no-")) in driver.refused_args
    ]
    found += [
        (f"env.{name}", driver.refused_env[name])
        for name in instance.env
        if name in driver.refused_env
    ]
    for setting, conflict in found:
        raise LayoutError(
            what=f"Instance {instance.name} cannot have {setting}",
            why=conflict.why,
            do=conflict.do,
        )


def dummy_format(instance: Instance) -> str | None:
    """The value of `--load-format`, which our worker has from vLLM."""
    return "dummy" if instance.weights == "dummy" else None


def beside(python: str, program: str) -> str:
    """The program that is installed beside an interpreter; its bare name beside a bare one."""
    return str(PurePosixPath(python).with_name(program)) if "/" in python else program
