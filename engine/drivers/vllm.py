"""What all engines of the vLLM family share: their flags' other names, and what they are refused.

Flags and variables were read in vLLM 0.32.0 and 0.6.6.post1, the one of ipex-llm 2.2.0.
"""

from collections.abc import Mapping

from engine.core.command import LAYOUT, Setting
from engine.core.errors import LayoutError
from engine.core.layout import Instance
from engine.drivers.driver import Conflict, Order, dummy_format
from engine.drivers.flags import Flag, plain_name

ALIASES: Mapping[str, str] = {
    "tp": "tensor-parallel-size",
    "pp": "pipeline-parallel-size",
    "dp": "data-parallel-size",
    "q": "quantization",
    "device-memory-utilization": "gpu-memory-utilization",
    # llm-scaler's documents shorten it, and the parser takes that.
    "gpu-memory-util": "gpu-memory-utilization",
}

LENGTHS = ("max-model-len", "max-num-batched-tokens", "max-num-seqs")
"""Written where the guides write them, and only when the layout says them."""

_GIB = 1 << 30
_LEAST_KV_GIB = 4
"""What vLLM's CPU engine took before it measured memory; two that measure cannot share a node."""
_OWN_KEY = "it has a key of its own in the layout"
_HTTP = "slotdeck asks the engine over plain http whether it is ready"
_REPLICAS = Conflict(
    "the replicas of one process share its slot, so none of them has cores and memory of its own",
    'Make them instances: count = 2 with slot = "each numa" or "each gpu"',
)
_ONE_HOST = Conflict("slotdeck places one engine on one machine", "Leave it out")

REFUSED_ARGS: Mapping[str, Conflict] = {
    "host": Conflict(_OWN_KEY, 'Write host = "0.0.0.0" under [[instance]]'),
    "port": Conflict(_OWN_KEY, "Write port = 8001 under [[instance]]"),
    "model": Conflict(_OWN_KEY, "Write model = … under [[instance]]"),
    "trust-remote-code": Conflict(
        "it lets a model run its own code, so the layout says it where it is seen",
        "Write trust_remote_code = true under [[instance]]",
    ),
    "served-model-name": Conflict(
        "slotdeck asks the engine for the model by the name it gave it", "Leave it out"
    ),
    "api-key": Conflict(
        "everybody who lists processes would see the key", 'Write env = { VLLM_API_KEY = "…" }'
    ),
    "uds": Conflict(_HTTP, "Leave it out: host and port say where it listens"),
    "ssl-certfile": Conflict(_HTTP, "Put a proxy with TLS in front of it"),
    "ssl-keyfile": Conflict(_HTTP, "Put a proxy with TLS in front of it"),
    "headless": Conflict("an engine without its API is never ready", "Leave it out"),
    "nnodes": _ONE_HOST,
    "node-rank": _ONE_HOST,
}
"""By any vLLM."""

_SLOT = "the slot decides which PUs and memory the engine gets"
_GONE = "vLLM 0.32 does not know it and ends at once"
REFUSED_BY_NEW: Mapping[str, Conflict] = {
    **REFUSED_ARGS,
    "numa-bind": Conflict(_SLOT, "Leave it out: the slot binds the workers too"),
    "numa-bind-nodes": Conflict(_SLOT, "Leave it out: the slot binds the workers too"),
    "numa-bind-cpus": Conflict(_SLOT, "Leave it out: the slot binds the workers too"),
    "device-ids": Conflict("the slot decides which GPUs the engine sees", 'Write slot = "gpu:0"'),
    "device": Conflict(
        f"{_GONE}: which device it computes on is decided by what was installed", "Leave it out"
    ),
    "load-in-low-bit": Conflict(
        f"{_GONE}: it is ipex-llm's", 'Write weight_only = "fp8", or use engine = "ipex-llm"'
    ),
    "disable-async-output-proc": Conflict(_GONE, "Leave it out"),
    "swap-space": Conflict(_GONE, "Leave it out"),
    "disable-log-requests": Conflict(_GONE, "Leave it out: that is the default now"),
}
"""By vLLM of today; the last five are flags of vLLM before 0.10 that live on in old guides."""

REFUSED_ON_CPU: Mapping[str, Conflict] = {
    "data-parallel-size": _REPLICAS,
    "data-parallel-size-local": _REPLICAS,
    "data-parallel-start-rank": _REPLICAS,
}

_LISTS = Conflict(
    "slotdeck writes the slot's PUs there, one list for each rank",
    "Choose the PUs with slot, and how many stay free with reserve_cores",
)
_OVERWRITTEN = Conflict(
    "vLLM's workers write it themselves, from the slot's PUs", "Choose the PUs with slot"
)
REFUSED_LISTS: Mapping[str, Conflict] = {
    "VLLM_CPU_OMP_THREADS_BIND": _LISTS,
    "VLLM_CPU_NUM_OF_RESERVED_CPU": _LISTS,
    "VLLM_CPU_SIM_MULTI_NUMA": _LISTS,
    "CPU_VISIBLE_MEMORY_NODES": _LISTS,
}
REFUSED_CPU_ENV: Mapping[str, Conflict] = {
    **REFUSED_LISTS,
    "OMP_NUM_THREADS": _OVERWRITTEN,
    "OMP_PLACES": _OVERWRITTEN,
    "OMP_PROC_BIND": _OVERWRITTEN,
    "GOMP_CPU_AFFINITY": _OVERWRITTEN,
    "KMP_AFFINITY": _OVERWRITTEN,
}

_MASK = Conflict(
    "slotdeck writes there which GPUs the slot has", 'Choose them with slot = "gpu:0,1"'
)
REFUSED_GPU_ENV: Mapping[str, Conflict] = {
    "ZE_AFFINITY_MASK": _MASK,
    "ZE_ENABLE_PCI_ID_DEVICE_ORDER": _MASK,
    "ONEAPI_DEVICE_SELECTOR": _MASK,
    "SYCL_DEVICE_FILTER": _MASK,
}


def size_of(instance: Instance, name: str) -> int | None:
    """A whole number from the layout's args, by any of its names; None where it has none."""
    for written, value in instance.args.items():
        if plain_name(written, ALIASES) == name:
            try:
                return max(1, int(value))
            except ValueError:
                return None
    return None


def world_size(instance: Instance, *, tensor_parallel: int) -> int:
    """Over how many devices one model is split: what the layout's args say, else the slot."""
    stages = size_of(instance, "pipeline-parallel-size") or 1
    ranks = size_of(instance, "tensor-parallel-size")
    return (tensor_parallel if ranks is None else ranks) * stages


def kv_space(order: Order, world: int, source: str) -> dict[str, Setting]:
    """GiB for each CPU rank's KV cache. Without it an engine takes 4 GiB or, since it measures
    memory, a share of its node's whole memory, and a second one on the node does not start."""
    said = {plain_name(name, ALIASES) for name in order.instance.args}
    # The variable would overrule these flags.
    if said & {"kv-cache-memory-bytes", "gpu-memory-utilization"}:
        return {}
    needed = -(-(order.kv_bytes or 0) // (_GIB * world))
    full = order.kv_bytes is not None and {"max-model-len", "max-num-seqs"} <= said
    if full:
        space, why = max(1, needed), "max-num-seqs requests of max-model-len tokens"
    elif needed > _LEAST_KV_GIB:
        space, why = needed, "one request of the full length"
    else:
        space, why = _LEAST_KV_GIB, "a start; max-model-len and max-num-seqs would size it"
    return {"VLLM_CPU_KVCACHE_SPACE": Setting(str(space), f"{source}: GiB for each rank: {why}")}


def dummy_flags(order: Order) -> tuple[Flag, ...]:
    """Made-up weights, and no tokenizer where the directory has none: prompts are then numbers."""
    without = order.instance.weights == "dummy" and not order.has_tokenizer
    return (
        Flag("load-format", dummy_format(order.instance), f"{LAYOUT}: weights"),
        Flag("skip-tokenizer-init", without, f"{LAYOUT}: weights, and the model has no tokenizer"),
    )


def require_model(order: Order) -> None:
    """Raises LayoutError where the layout names no model."""
    if not order.model:
        raise LayoutError(
            what=f"Instance {order.instance.name} names no model",
            why="a vLLM engine serves one",
            do="Add model = …: a directory, or a hub id",
        )


def common_env(order: Order, source: str) -> dict[str, Setting]:
    """Variables for every vLLM."""
    env = {"VLLM_NO_USAGE_STATS": Setting("1", f"{source}: nothing is reported to the project")}
    if order.has_local_model:
        env["HF_HUB_OFFLINE"] = Setting("1", f"{source}: the model is here, nothing to download")
    return env


def gpu_env(order: Order, source: str) -> dict[str, Setting]:
    """Variables that show the engine its GPUs and no others."""
    mask = order.gpu_mask or ",".join(map(str, order.placement.gpus))
    return {
        "ZE_AFFINITY_MASK": Setting(mask, f"{source}: the slot's GPUs"),
        # Its default, said so that the numbers above mean what they say.
        "ZE_ENABLE_PCI_ID_DEVICE_ORDER": Setting(
            "0", f"{source}: cards counted before a GPU inside the processor, as slotdeck does"
        ),
    }
