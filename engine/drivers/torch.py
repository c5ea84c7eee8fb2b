"""The `torch` engine: our worker on PyTorch, in the engine's own Python."""

from collections.abc import Mapping

from engine.core.command import LAYOUT, PLACEMENT, Command, Setting
from engine.drivers.driver import (
    DTYPES,
    VLLM_METRICS,
    Conflict,
    Device,
    Order,
    check_settings,
    dummy_format,
)
from engine.drivers.flags import Flag, with_args, written
from engine.drivers.profiles import profile_of

_OWN_KEY = "it has a key of its own in the layout"


class TorchDriver:
    """PyTorch on the CPU; weight-only INT8 halves or quarters what each token reads."""

    name = "torch"
    device: Device = "cpu"
    tensor_parallel = False
    memory_share: float | None = None
    dtypes: tuple[str, ...] = DTYPES
    refused_args: Mapping[str, Conflict] = {
        "model": Conflict(_OWN_KEY, "Write model = … under [[instance]]"),
        "host": Conflict(_OWN_KEY, 'Write host = "0.0.0.0" under [[instance]]'),
        "port": Conflict(_OWN_KEY, "Write port = 8001 under [[instance]]"),
        "trust-remote-code": Conflict(
            "it lets a model run its own code, so the layout says it where it is seen",
            "Write trust_remote_code = true under [[instance]]",
        ),
        "served-model-name": Conflict(
            "slotdeck asks the engine for the model by the name it gave it", "Leave it out"
        ),
        "load-format": Conflict(_OWN_KEY, 'Write weights = "dummy" under [[instance]]'),
        "offline": Conflict(
            "an engine that measures itself answers nobody",
            "Run `slotdeck bench --offline LAYOUT`",
        ),
        "engine": Conflict(_OWN_KEY, 'Write engine = "torch" or "ipex" under [[instance]]'),
    }
    refused_env: Mapping[str, Conflict] = {}
    metric_names = VLLM_METRICS
    health_path = "/health"
    reserve_cores = 0
    framework_bytes: int | None = None
    binds_threads = False
    ready_timeout_s = 300.0
    stop_grace_s = 15.0
    needs_model = True
    downloads = False
    api_key_variable: str | None = "SLOTDECK_API_KEY"
    weight_only: tuple[str, ...] = ("none", "int8")
    dummy_weights = True

    def command(self, order: Order) -> Command:
        """`python worker --model DIR --port N …`, with as many threads as PUs."""
        instance, placement = order.instance, order.placement
        check_settings(self, instance)
        source = f"driver: {self.name}"
        threads = str(len(placement.pus))
        grace = instance.stop_grace_s if instance.stop_grace_s is not None else self.stop_grace_s
        own = (
            Flag("model", order.model, LAYOUT),
            Flag(
                "served-model-name", order.served_name, f"{source}: the model's name in requests"
            ),
            Flag("host", instance.host, LAYOUT),
            Flag("port", str(placement.port), PLACEMENT),
            Flag("engine", self.name, LAYOUT),
            Flag("dtype", instance.dtype, LAYOUT),
            Flag("weight-only", instance.weight_only, LAYOUT),
            Flag("load-format", dummy_format(instance), f"{LAYOUT}: weights"),
            Flag("threads", threads, f"{source}: one thread per PU of the slot"),
            Flag(
                "grace-s",
                f"{max(0.0, grace - 2.0):g}",
                f"{source}: gives up its requests a little before we would kill it",
            ),
            Flag("trust-remote-code", instance.trust_remote_code, LAYOUT),
            *_cache_size(order),
        )
        words, sources = written(with_args(own, instance.args))
        env = {
            "OMP_NUM_THREADS": Setting(threads, f"{source}: one thread per PU of the slot"),
            "OMP_PROC_BIND": Setting("close", f"{source}: threads stay on their PU"),
            "HF_HUB_OFFLINE": Setting("1", f"{source}: a start downloads nothing"),
            "TOKENIZERS_PARALLELISM": Setting("false", f"{source}: no threads beside the slot"),
            **profile_of(self.name, order, tensor_parallel=1),
        }
        program = (order.python, "-u", order.worker)
        return Command((*program, *words), env, (source,) * len(program) + sources)


def _cache_size(order: Order) -> tuple[Flag, ...]:
    """As planned, where the layout says how many sequences run together; else the plan counts
    one, and the worker takes what its sequences need of the memory that is free."""
    if order.kv_bytes is None or "max-num-seqs" not in order.instance.args:
        return ()
    why = "driver: what the plan counts for max-num-seqs sequences at full length"
    return (Flag("kv-cache-memory-bytes", str(order.kv_bytes), why),)
