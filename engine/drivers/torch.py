"""The `torch` engine: our worker on PyTorch, in the engine's own Python."""

from collections.abc import Mapping

from engine.core.command import Command, Setting
from engine.drivers.driver import DTYPES, VLLM_METRICS, Conflict, Device, Order, flags


class TorchDriver:
    """PyTorch on the CPU; weight-only INT8 halves or quarters what each token reads."""

    name = "torch"
    device: Device = "cpu"
    tensor_parallel = False
    memory_share: float | None = None
    dtypes: tuple[str, ...] = DTYPES
    refused_args: Mapping[str, Conflict] = {}
    refused_env: Mapping[str, Conflict] = {}
    metric_names = VLLM_METRICS
    health_path = "/health"
    reserve_cores = 0
    ready_timeout_s = 300.0
    stop_grace_s = 15.0
    needs_model = True
    api_key_variable: str | None = "SLOTDECK_API_KEY"
    weight_only: tuple[str, ...] = ("none", "int8")

    def command(self, order: Order) -> Command:
        """`python worker --model DIR --port N …`, with as many threads as PUs."""
        instance, placement = order.instance, order.placement
        threads = str(len(placement.pus))
        grace = instance.stop_grace_s if instance.stop_grace_s is not None else self.stop_grace_s
        argv = (
            order.python,
            "-u",
            order.worker,
            *("--model", order.model),
            *("--served-model-name", order.served_name),
            *("--host", instance.host),
            *("--port", str(placement.port)),
            *("--engine", self.name),
            *("--dtype", instance.dtype),
            *("--weight-only", instance.weight_only),
            *("--threads", threads),
            # The worker gives up its requests a little before we would kill it.
            *("--grace-s", f"{max(0.0, grace - 2.0):g}"),
            *(("--trust-remote-code",) if instance.trust_remote_code else ()),
            *flags(instance.args),
        )
        source = f"driver: {self.name}"
        env = {
            "OMP_NUM_THREADS": Setting(threads, f"{source}: one thread per PU of the slot"),
            "OMP_PROC_BIND": Setting("close", f"{source}: threads stay on their PU"),
            "HF_HUB_OFFLINE": Setting("1", f"{source}: a start downloads nothing"),
            "TOKENIZERS_PARALLELISM": Setting("false", f"{source}: no threads beside the slot"),
        }
        return Command(argv, env)
