"""The `vllm-xpu` engine: vLLM's own server on Intel GPUs, and Intel's llm-scaler build of it."""

from collections.abc import Mapping

from engine.core.command import LAYOUT, PLACEMENT, Command, Setting
from engine.drivers import vllm
from engine.drivers.driver import (
    DTYPES,
    VLLM_METRICS,
    Conflict,
    Device,
    Order,
    beside,
    check_settings,
)
from engine.drivers.flags import Flag, with_args, written
from engine.drivers.profiles import profile_of


class VllmXpuDriver:
    """One model on one GPU, or tensor parallel over the slot's GPUs."""

    name = "vllm-xpu"
    device: Device = "gpu"
    tensor_parallel = True
    memory_share: float | None = 0.9
    dtypes: tuple[str, ...] = DTYPES
    refused_args: Mapping[str, Conflict] = vllm.REFUSED_BY_NEW
    refused_env: Mapping[str, Conflict] = vllm.REFUSED_GPU_ENV
    metric_names = VLLM_METRICS
    health_path = "/health"
    reserve_cores = 0
    framework_bytes: int | None = None
    binds_threads = False
    # Weights are quantized while they load, and kernels compiled.
    ready_timeout_s = 1800.0
    # vLLM itself takes 5 s to hand its GPUs back; killed before, the next start on them hangs.
    stop_grace_s = 30.0
    needs_model = True
    downloads = True
    api_key_variable: str | None = "VLLM_API_KEY"
    weight_only: tuple[str, ...] = ("none", "fp8", "mxfp8", "mxfp4", "sym_int4")
    dummy_weights = True

    def command(self, order: Order) -> Command:
        """`vllm serve MODEL …`; the program beside the engine's own Python."""
        instance, placement = order.instance, order.placement
        check_settings(self, instance, aliases=vllm.ALIASES)
        vllm.require_model(order)
        source = f"driver: {self.name}"
        world = vllm.world_size(instance, tensor_parallel=placement.tensor_parallel)
        quantization = None if instance.weight_only == "none" else instance.weight_only
        own = (
            Flag("host", instance.host, LAYOUT),
            Flag("port", str(placement.port), PLACEMENT),
            Flag(
                "served-model-name", order.served_name, f"{source}: the model's name in requests"
            ),
            Flag("dtype", instance.dtype, LAYOUT),
            Flag("quantization", quantization, f"{LAYOUT}: weight_only"),
            Flag("gpu-memory-utilization", f"{self.memory_share:g}", f"{source}: as its guides"),
            Flag("block-size", "64", f"{source}: the page of the XPU kernels"),
            Flag(
                "enforce-eager",
                value=True,
                source=f"{source}: graphs on XPU are new, its guides start without",
            ),
            *vllm.dummy_flags(order),
            *(Flag(name, None, source) for name in vllm.LENGTHS),
            Flag("tensor-parallel-size", str(placement.tensor_parallel), PLACEMENT),
            Flag(
                "distributed-executor-backend",
                "mp" if world > 1 else None,
                f"{source}: ranks on this machine, no Ray",
            ),
            Flag("trust-remote-code", instance.trust_remote_code, LAYOUT),
        )
        words, sources = written(with_args(own, instance.args, aliases=vllm.ALIASES))
        env = {
            **vllm.gpu_env(order, source),
            "VLLM_WORKER_MULTIPROC_METHOD": Setting("spawn", f"{source}: the only one on XPU"),
            **vllm.common_env(order, source),
            **profile_of(self.name, order, tensor_parallel=world),
        }
        return Command(
            (beside(order.python, "vllm"), "serve", order.model, *words),
            env,
            (f"{source}: beside its Python", source, LAYOUT, *sources),
        )
