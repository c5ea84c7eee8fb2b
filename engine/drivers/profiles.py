"""Environment profiles as data: what each engine's documents set on each family of cards.

Every row names the place it was read in. Rows of scope OPT_IN are switches seen in threads, good
on one host and bad on another: they are offered, one at a time, and never set unasked.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from engine.core.command import Setting
from engine.core.errors import LayoutError
from engine.core.layout_text.mistakes import nearest
from engine.drivers.driver import Order
from engine.drivers.level_zero import BATTLEMAGE, DG2, FLEX, Generation, generations

TENSOR_PARALLEL = "tensor parallel only"
CORE_CPUS = "Core CPUs only"
OPT_IN = "opt-in"


@dataclass(frozen=True, slots=True)
class Variable:
    """One row: a variable for an engine, on which cards, when, and who says so."""

    engine: str
    cards: tuple[Generation, ...]
    """Empty: whatever the engine runs on."""
    scope: tuple[str, ...]
    """All of these must hold; empty: always."""
    name: str
    value: str
    why: str
    source: str
    """The document or thread it was read in."""

    @property
    def key(self) -> str:
        """What an opt-in row is asked for by."""
        return f"{self.name}={self.value}"


_ALWAYS = ()
_TOGETHER = (TENSOR_PARALLEL,)
_SWITCH = (OPT_IN,)
_SWITCH_TOGETHER = (OPT_IN, TENSOR_PARALLEL)
_ARC = (DG2, FLEX, BATTLEMAGE)
_ANY = ()

_START = "intel/ipex-llm docker/llm/serving/xpu/docker/start-vllm-service.sh"
_QUICKSTART = "intel/ipex-llm docs/mddocs/Quickstart/vLLM_quickstart.md section 4"
_SCALER = "intel/llm-scaler vllm/README.md"

_OFF = ("USE_XETLA", "OFF", "the XeTLA kernels are for Max")
_CACHE = ("SYCL_CACHE_PERSISTENT", "1", "kernels compiled once are kept")
_LISTS = ("SYCL_PI_LEVEL_ZERO_USE_IMMEDIATE_COMMANDLISTS", "2", "work is handed over at once")
_V0 = ("VLLM_USE_V1", "0", "its kernels are for vLLM's first engine")
_SUMS = ("TORCH_LLM_ALLREDUCE", "0", "sums over cards are oneCCL's")
_STREAM = ("CCL_SAME_STREAM", "1", "sums wait in the stream of the kernels")
_WAIT = ("CCL_BLOCKING_WAIT", "0", "no thread blocks in oneCCL")
_PROVIDER = ("FI_PROVIDER", "shm", "ranks of one machine talk through shared memory")
_TRANSPORT = ("CCL_ATL_TRANSPORT", "ofi", "no MPI is needed")
_SOCKETS = ("CCL_ZE_IPC_EXCHANGE", "sockets", "memory handles pass without ptrace rights")
_SHM = ("CCL_ATL_SHM", "1", "ranks of one machine talk through shared memory")
_TWO_WORKERS = ("CCL_WORKER_COUNT", "2", "two oneCCL threads for each rank")
_ONE_WORKER = ("CCL_WORKER_COUNT", "1", "with 2 its oneCCL does not work on Battlemage")
_USM = ("CCL_DG2_USM", "1", "cards meet in the machine's memory: unlike a Xeon, Core has no P2P")
_LONG = ("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1", "max-model-len may pass what the model is made for")
_OFFLOAD = (
    *("VLLM_OFFLOAD_WEIGHTS_BEFORE_QUANT", "1"),
    "weights wait outside the card while they are quantized; llm-scaler's vLLM only",
)
_P2P = ("CCL_TOPO_P2P_ACCESS", "1", "cards write to each other: 15 % more at 30 requests")
_NO_P2P = ("CCL_TOPO_P2P_ACCESS", "0", "cards meet in the machine's memory, where P2P fails")
_PIDFD = (
    *("CCL_ZE_IPC_EXCHANGE", "pidfd"),
    "passes memory handles; needs kernel.yama.ptrace_scope = 0 or SYS_PTRACE",
)
_NO_KERNELS = (
    *("CCL_ENABLE_SYCL_KERNELS", "0"),
    "cures resets of the cards' engines with two of them; slow for a single request",
)
_RING = (
    *("CCL_ALLREDUCE", "ring"),
    "cures a warm-up that never ends on B60 with oneCCL 2022; about 30 % slower",
)
_NO_COPIES = (
    *("UR_L0_V2_FORCE_DISABLE_COPY_OFFLOAD", "1"),
    "copies stay off the copy engine, which is unstable on Battlemage",
)
_NO_LINKS = (
    *("CCL_TOPO_FABRIC_VERTEX_CONNECTION_CHECK", "0"),
    "oneCCL stops guessing the links between cards and takes them for Xe links",
)
PROFILES: tuple[Variable, ...] = (
    Variable("ipex-llm", _ARC, _ALWAYS, *_OFF, _START),
    Variable("ipex-llm", _ARC, _ALWAYS, *_CACHE, _START),
    Variable("ipex-llm", _ARC, _ALWAYS, *_LISTS, _START),
    Variable("ipex-llm", _ARC, _ALWAYS, *_V0, _START),
    Variable("ipex-llm", _ARC, _TOGETHER, *_SUMS, _START),
    Variable("ipex-llm", _ARC, _TOGETHER, *_STREAM, _START),
    Variable("ipex-llm", _ARC, _TOGETHER, *_WAIT, _START),
    Variable("ipex-llm", _ARC, _TOGETHER, *_PROVIDER, _QUICKSTART),
    Variable("ipex-llm", _ARC, _TOGETHER, *_TRANSPORT, _QUICKSTART),
    Variable("ipex-llm", _ARC, _TOGETHER, *_SOCKETS, _QUICKSTART),
    Variable("ipex-llm", _ARC, _TOGETHER, *_SHM, _QUICKSTART),
    Variable("ipex-llm", (DG2, FLEX), _TOGETHER, *_TWO_WORKERS, _QUICKSTART),
    Variable("ipex-llm", (BATTLEMAGE,), _TOGETHER, *_ONE_WORKER, _START),
    Variable("ipex-llm", _ARC, (TENSOR_PARALLEL, CORE_CPUS), *_USM, _START),
    Variable("vllm-xpu", _ANY, _SWITCH, *_LONG, f"{_SCALER} 1.4.1"),
    Variable("vllm-xpu", _ANY, _SWITCH, *_OFFLOAD, f"{_SCALER}, serving examples"),
    Variable("vllm-xpu", _ANY, _SWITCH_TOGETHER, *_P2P, f"{_SCALER} 2.1"),
    Variable("vllm-xpu", _ANY, _SWITCH_TOGETHER, *_NO_P2P, f"{_SCALER} 2.1"),
    Variable("vllm-xpu", _ANY, _SWITCH_TOGETHER, *_PIDFD, f"{_SCALER} 2.4.1"),
    Variable("vllm-xpu", _ANY, _SWITCH_TOGETHER, *_SOCKETS, _QUICKSTART),
    Variable("vllm-xpu", _ANY, _SWITCH_TOGETHER, *_NO_LINKS, "oneCCL's log, intel/ipex-llm#11789"),
    Variable(
        *("vllm-xpu", (BATTLEMAGE,), _SWITCH_TOGETHER, *_NO_KERNELS),
        source="vllm-project/vllm#41663, #48953",
    ),
    Variable("vllm-xpu", (BATTLEMAGE,), _SWITCH_TOGETHER, *_RING, "vllm-project/vllm#50545"),
    Variable("vllm-xpu", (BATTLEMAGE,), _SWITCH, *_NO_COPIES, "intel/llvm#17721"),
)


def profile_for(
    engine: str,
    cards: Collection[Generation],
    *,
    tensor_parallel: int,
    core_cpu: bool = False,
    opt_in: Collection[str] = (),
) -> dict[str, Setting]:
    """The variables for an engine on these cards; `opt_in` asks for single rows by their key.

    Of two rows for one variable the one that was asked for counts, else the later one: a single
    oneCCL thread also on a machine with both families of cards.
    """
    fitting = _fitting(engine, cards, tensor_parallel=tensor_parallel, core_cpu=core_cpu)
    chosen = [row for row in fitting if OPT_IN not in row.scope or row.key in opt_in]
    chosen.sort(key=lambda row: OPT_IN in row.scope)
    on = " and ".join(sorted(cards))
    where = f"{engine} on {on}" if on else engine
    return {
        row.name: Setting(row.value, f"profile: {where} ({row.source}): {row.why}")
        for row in chosen
    }


def offered(
    engine: str, cards: Collection[Generation], *, tensor_parallel: int
) -> tuple[Variable, ...]:
    """The opt-in rows that fit, to try one at a time."""
    fitting = _fitting(engine, cards, tensor_parallel=tensor_parallel, core_cpu=False)
    return tuple(row for row in fitting if OPT_IN in row.scope)


def profile_of(engine: str, order: Order, *, tensor_parallel: int) -> dict[str, Setting]:
    """The same for an order: its cards, its processor, and the rows that the layout asks for.

    Raises LayoutError for a row that is not offered.
    """
    cards = generations(order)
    keys = [row.key for row in offered(engine, cards, tensor_parallel=tensor_parallel)]
    for asked in order.instance.profile:
        # Of a made-up card nothing is known: then every row of the engine may be meant.
        known = keys if cards else [row.key for row in PROFILES if row.engine == engine]
        if asked not in known:
            offers = ", ".join(known) or "nothing"
            raise LayoutError(
                what=f"Instance {order.instance.name} cannot have profile {asked!r}",
                why=f"for {engine} here is offered: {offers}",
                do=f"{nearest(asked, known)}Any other variable goes under env",
            )
    return profile_for(
        *(engine, cards),
        tensor_parallel=tensor_parallel,
        core_cpu=is_core_cpu(order),
        opt_in=order.instance.profile,
    )


def is_core_cpu(order: Order) -> bool:
    """Whether the processor is known to be an Intel Core."""
    return order.cpu_model is not None and "Intel(R) Core" in order.cpu_model


def _fitting(
    engine: str, cards: Collection[Generation], *, tensor_parallel: int, core_cpu: bool
) -> Iterable[Variable]:
    holds = {TENSOR_PARALLEL: tensor_parallel > 1, CORE_CPUS: core_cpu, OPT_IN: True}
    for row in PROFILES:
        fits = row.engine == engine and (not row.cards or set(cards) & set(row.cards))
        if fits and all(holds[condition] for condition in row.scope):
            yield row
