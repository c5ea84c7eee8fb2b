"""The `ipex-llm` engine: its vLLM server on Intel GPUs, or on CPUs where the slot has no GPU.

The project was archived in January 2026 and tells of known security issues; it stays the engine
that Intel's documents name for Arc A-series cards.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath

from engine.core.command import LAYOUT, PLACEMENT, Command, Setting
from engine.core.errors import LayoutError
from engine.core.layout import Instance
from engine.drivers import vllm
from engine.drivers.driver import VLLM_METRICS, Conflict, Device, Order, check_settings
from engine.drivers.flags import Flag, plain_name, with_args, written
from engine.drivers.profiles import profile_of
from engine.drivers.vllm_cpu import rank_pus

_EVERY_ADDRESS = "0.0.0.0"
"""Where it listens without `--host`."""


class IpexLlmDriver:
    """vLLM 0.6.6 with ipex-llm's low-bit weights, its flags in the order of Intel's guides."""

    name = "ipex-llm"
    device: Device = "any"
    tensor_parallel = True
    memory_share: float | None = 0.9
    dtypes: tuple[str, ...] = ("auto", "float16", "bfloat16")
    refused_args: Mapping[str, Conflict] = {
        **vllm.REFUSED_ARGS,
        **vllm.REFUSED_ON_CPU,
        "device": Conflict("the slot decides it", 'Write slot = "gpu:0", or "numa:0" for CPUs'),
    }
    refused_env: Mapping[str, Conflict] = {**vllm.REFUSED_LISTS, **vllm.REFUSED_GPU_ENV}
    metric_names = VLLM_METRICS
    health_path = "/health"
    reserve_cores = 0
    # On vLLM 0.6.6, SmolLM2: 2,349 MB resident with sym_int4, 1 GiB of them KV cache.
    framework_bytes: int | None = 1_150_000_000
    binds_threads = False
    ready_timeout_s = 1800.0
    stop_grace_s = 30.0
    needs_model = True
    downloads = True
    api_key_variable: str | None = "VLLM_API_KEY"
    dummy_weights = False
    weight_only: tuple[str, ...] = (
        *("none", "sym_int4", "asym_int4", "sym_int8", "fp6", "fp8", "fp8_e4m3", "fp8_e5m2"),
        *("woq_int4", "nf4", "fp4"),
    )

    def command(self, order: Order) -> Command:
        """`python -m ipex_llm.vllm.xpu.entrypoints.openai.api_server …`, or `.cpu.`."""
        instance, placement = order.instance, order.placement
        check_settings(self, instance, aliases=vllm.ALIASES)
        vllm.require_model(order)
        device = "xpu" if placement.gpus else "cpu"
        source = f"driver: {self.name}"
        default_dtype = "float16" if placement.gpus else "bfloat16"
        asked = instance.dtype != "auto"
        dtype = Flag(
            "dtype",
            instance.dtype if asked else default_dtype,
            LAYOUT if asked else f"{source}: as its guides on {device}",
        )
        quantized = instance.weight_only != "none"
        low_bit = instance.weight_only if quantized else _UNQUANTIZED[str(dtype.value)]
        if device == "cpu" and low_bit == "fp16" and low_bit_of_args(instance) is None:
            raise LayoutError(
                what=f"Instance {instance.name} cannot have dtype = 'float16' alone",
                why="without low-bit weights its vLLM computes on CPUs in bfloat16 only: with "
                "float16 it says that it is healthy, and dies at the first request",
                do='Write dtype = "bfloat16", or weight_only = "sym_int4"',
            )
        own = (
            Flag(
                "served-model-name", order.served_name, f"{source}: the model's name in requests"
            ),
            Flag("port", str(placement.port), PLACEMENT),
            Flag("model", order.model, LAYOUT),
            Flag("trust-remote-code", instance.trust_remote_code, LAYOUT),
            Flag(
                "gpu-memory-utilization",
                f"{self.memory_share:g}" if placement.gpus else None,
                f"{source}: as its guides",
            ),
            Flag("device", device, PLACEMENT),
            dtype,
            Flag("enforce-eager", value=True, source=f"{source}: it has no graphs"),
            Flag(
                _LOW_BIT,
                low_bit,
                f"{LAYOUT}: weight_only" if quantized else f"{source}: left out it means sym_int4",
            ),
            *(Flag(name, None, source) for name in vllm.LENGTHS),
            Flag("tensor-parallel-size", str(placement.tensor_parallel), PLACEMENT),
            # Without it the engine listens on every address; the guides leave it out.
            Flag("host", None if instance.host == _EVERY_ADDRESS else instance.host, LAYOUT),
        )
        flags = with_args(own, instance.args, aliases=vllm.ALIASES)
        words, sources = written(flags)
        given = next((flag.value for flag in flags if flag.name == _LOW_BIT), None)
        world = vllm.world_size(instance, tensor_parallel=placement.tensor_parallel)
        env = {
            **(self._gpu_env(order, given) if placement.gpus else self._cpu_env(order, world)),
            **self._path(order),
            **vllm.common_env(order, source),
            **profile_of(self.name, order, tensor_parallel=world),
        }
        module = f"ipex_llm.vllm.{device}.entrypoints.openai.api_server"
        return Command(
            (order.python, "-m", module, *words),
            env,
            (LAYOUT if instance.python else source, source, source, *sources),
        )

    def _gpu_env(self, order: Order, low_bit: object) -> dict[str, Setting]:
        source = f"driver: {self.name}"
        env = vllm.gpu_env(order, source)
        if isinstance(low_bit, str):
            why = f"{source}: experts in the same low-bit form"
            env["IPEX_LLM_LOWBIT"] = Setting(low_bit, why)
        return env

    def _cpu_env(self, order: Order, world: int) -> dict[str, Setting]:
        source = f"driver: {self.name}"
        ranks = rank_pus(order, world)
        return {
            "VLLM_CPU_OMP_THREADS_BIND": Setting(
                "|".join(map(str, ranks)), f"{source}: the slot's PUs, a list for each rank"
            ),
            "OMP_NUM_THREADS": Setting(
                str(len(ranks[0])), f"{source}: one thread for each PU of a rank"
            ),
            **vllm.kv_space(order, world, source),
        }

    def _path(self, order: Order) -> dict[str, Setting]:
        """It runs `pip list` to find its vLLM, and must find the pip of its own Python."""
        if "/" not in order.python:
            return {}
        first = str(PurePosixPath(order.python).parent)
        rest = order.path or "/usr/local/bin:/usr/bin:/bin"
        return {
            "PATH": Setting(f"{first}:{rest}", f"driver: {self.name}: the pip of its own Python")
        }


def low_bit_of_args(instance: Instance) -> str | None:
    """What the layout's `args` say in the place of `weight_only`; None where they say nothing."""
    for written_name, value in instance.args.items():
        if plain_name(written_name, vllm.ALIASES) == _LOW_BIT:
            return str(value)
    return None


_LOW_BIT = "load-in-low-bit"
_UNQUANTIZED = {"float16": "fp16", "bfloat16": "bf16"}
