"""Known-bad combinations as data: what is refused, and what is told, before an engine starts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.core.errors import LayoutError
from engine.core.placement import Refusal
from engine.drivers import vllm
from engine.drivers.driver import Order
from engine.drivers.ipex_llm import low_bit_of_args
from engine.drivers.level_zero import DG2, INTEL, generations, has_two_tiles
from engine.drivers.vllm_cpu import rank_pus

_GPU_ENGINES = ("vllm-xpu", "ipex-llm")
_DIES_ON_CPU = ("fp8", "fp6", "fp4", "nf4", "nf3")
"""Low-bit forms of ipex-llm without kernels for CPUs."""
_SHM_RANKS = (1, 2, 3, 4, 8)
"""How many ranks vLLM's shared-memory exchange between CPU ranks is compiled for."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A combination that was seen to fail or to disappoint, and what to do instead."""

    engines: tuple[str, ...]
    refuse: bool
    """Else it is only told."""
    when: Callable[[Order], bool]
    why: str
    do: str
    source: str
    """Where it was read or seen."""


def _on_cpu(order: Order) -> bool:
    return not order.placement.gpus


def _lacks(order: Order, *flags: str) -> bool:
    """Whether the processor is known to have none of these."""
    return order.cpu_flags is not None and not order.cpu_flags & set(flags)


def _world(order: Order) -> int:
    own = order.placement.tensor_parallel if order.instance.engine in _GPU_ENGINES else 1
    return vllm.world_size(order.instance, tensor_parallel=own)


def _gpu_world(order: Order) -> int:
    return _world(order) * (vllm.size_of(order.instance, "data-parallel-size") or 1)


def _leaves_pus(order: Order) -> bool:
    world = _world(order)
    if world == 1:
        return False
    try:
        ranks = rank_pus(order, world)
    except LayoutError:
        return False  # The driver refuses it with its own words.
    computing = order.placement.pus - order.placement.reserved
    return sum(map(len, ranks)) < len(computing)


TROUBLES: tuple[Trouble, ...] = (
    Trouble(
        ("ipex-llm",),
        refuse=True,
        when=lambda order: (
            _on_cpu(order)
            and low_bit_of_args(order.instance) is None
            and order.instance.weight_only.startswith(_DIES_ON_CPU)
        ),
        why="on CPUs ipex-llm loads FP8, FP6, FP4 and NF4 weights, says it is healthy, and dies "
        "at the first request",
        do='Write weight_only = "sym_int4" or "sym_int8"',
        source="ipex-llm 2.2.0 as run, transformers/low_bit_linear.py",
    ),
    Trouble(
        ("ipex-llm",),
        refuse=False,
        when=lambda order: (
            _on_cpu(order) and (low_bit_of_args(order.instance) or "").startswith(_DIES_ON_CPU)
        ),
        why="args ask for weights with which ipex-llm on CPUs dies at the first request: it will "
        "never be ready",
        do='Write weight_only = "sym_int4" or "sym_int8" in their place',
        source="ipex-llm 2.2.0 as run, transformers/low_bit_linear.py",
    ),
    Trouble(
        ("ipex-llm",),
        refuse=False,
        when=lambda order: _on_cpu(order) and order.instance.dtype == "float16",
        why="on CPUs its vLLM computes in bfloat16 where float16 was asked for",
        do='Write dtype = "bfloat16"',
        source="vLLM 0.6.6 platforms/cpu.py",
    ),
    Trouble(
        ("ipex-llm",),
        refuse=False,
        when=lambda order: any(
            gpu.driver == "xe" and DG2 in generations(order) for gpu in order.cards
        ),
        why="its documents drive Arc A-series cards with i915, and this one has xe",
        do="If it does not start, load i915 for the card (i915-dkms on Ubuntu 22.04)",
        source="intel/ipex-llm docs/mddocs/Quickstart/install_linux_gpu.md",
    ),
    Trouble(
        ("ipex",),
        refuse=False,
        when=lambda order: (
            order.instance.dtype == "bfloat16" and _lacks(order, "avx512bw", "avx_ne_convert")
        ),
        why="without AVX-512 IPEX cannot pack bfloat16 weights, and computes slowly with them",
        do='Write dtype = "float32", or use engine = "torch"',
        source="IPEX 2.8.0 as run on AVX2: BF16 weight prepack needs avx512bw or avx_ne_convert",
    ),
    Trouble(
        ("ipex",),
        refuse=False,
        when=lambda order: (
            order.instance.weight_only == "int4" and _lacks(order, "avx512f", "amx_tile")
        ),
        why="without AVX-512 or AMX, IPEX's INT4 weights are 7 times slower than float32",
        do='Write weight_only = "int8", for which the worker then takes torch\'s own kernel',
        source="IPEX 2.8.0 as run on AVX2",
    ),
    Trouble(
        ("vllm-cpu",),
        refuse=True,
        when=lambda order: order.instance.weight_only == "fp8" and _lacks(order, "amx_tile"),
        why="FP8 on CPUs needs AMX (Sapphire Rapids or newer)",
        do='Write weight_only = "none"; AWQ and GPTQ checkpoints need no key at all',
        source="vLLM 0.32.0 as run on AVX2, where it ends while it quantizes; its kernels ask for "
        "amx_tile",
    ),
    Trouble(
        ("vllm-cpu", "vllm-xpu"),
        refuse=True,
        when=lambda order: (
            order.instance.weight_only == "fp8" and order.instance.dtype == "float32"
        ),
        why="vLLM computes with FP8 weights in bfloat16 or float16 only, and ends at once",
        do='Write dtype = "bfloat16"',
        source="vLLM 0.32.0 as run",
    ),
    Trouble(
        ("vllm-cpu",),
        refuse=False,
        when=lambda order: order.instance.weight_only == "fp8" and order.cpu_flags is None,
        why="FP8 on CPUs needs AMX (Sapphire Rapids or newer), and whether this one has it is not "
        "known",
        do="Look for amx_tile in /proc/cpuinfo",
        source="vLLM 0.32 kernels/linear/scaled_mm/cpu.py",
    ),
    Trouble(
        ("vllm-cpu",),
        refuse=True,
        # Without AVX-512 ranks meet through gloo, which takes any number.
        when=lambda order: (
            (vllm.size_of(order.instance, "tensor-parallel-size") or 1) not in _SHM_RANKS
            and not _lacks(order, "avx512f")
        ),
        why="on CPUs vLLM adds up over 2, 3, 4 or 8 ranks and no other number",
        do='Run a replica on each NUMA node instead: slot = "each numa"',
        source="vLLM 0.32.0's _C_AVX512, csrc/cpu/shm.cpp; of 6 also Intel's guide",
    ),
    Trouble(
        ("vllm-cpu", "ipex-llm"),
        refuse=False,
        when=lambda order: _on_cpu(order) and _world(order) == 1 and len(order.nodes) > 1,
        why="a rank takes all its memory from the NUMA node of its first PU, and the slot's other "
        "nodes reach it remotely",
        do="Place one replica on each node, or write args = { tensor-parallel-size = … }",
        source="vLLM 0.32 v1/worker/cpu_worker.py",
    ),
    Trouble(
        ("vllm-cpu", "ipex-llm"),
        refuse=False,
        when=lambda order: _on_cpu(order) and _leaves_pus(order),
        why="ranks have equally many threads, so some PUs of the larger NUMA nodes stay idle",
        do="Choose a slot with as many cores on each node, or set reserve_cores = 0",
        source="vLLM csrc/cpu/shm.cpp",
    ),
    Trouble(
        _GPU_ENGINES,
        refuse=True,
        when=lambda order: any(gpu.vendor not in (None, INTEL) for gpu in order.cards),
        why="it computes on Intel GPUs, and the slot has another vendor's",
        do='Choose an Intel GPU, or use engine = "command"',
        source="vLLM 0.32 platforms/xpu.py",
    ),
    Trouble(
        _GPU_ENGINES,
        refuse=True,
        # Of a made-up card there is nothing to know.
        when=lambda order: any(
            gpu.device is not None and gpu.driver not in ("i915", "xe") for gpu in order.cards
        ),
        why="no driver that Level Zero can use (i915 or xe) is bound to the GPU",
        do="See slotdeck doctor, or lspci -k",
        source="intel/compute-runtime shared/source/os_interface/linux",
    ),
    Trouble(
        _GPU_ENGINES,
        refuse=False,
        when=lambda order: any(gpu.may_open is False for gpu in order.cards),
        why="you may not open the GPU's render node",
        do="Join the group that owns /dev/dri/renderD* (render or video), and log in again",
        source="/dev/dri",
    ),
    Trouble(
        _GPU_ENGINES,
        refuse=True,
        when=lambda order: 0 < len(order.placement.gpus) < _gpu_world(order),
        why="args ask for more ranks than the slot has GPUs",
        do="Name more GPUs in slot, or lower tensor-parallel-size",
        source="vLLM 0.32 config/parallel.py",
    ),
    Trouble(
        _GPU_ENGINES,
        refuse=False,
        when=lambda order: len(order.placement.gpus) > _gpu_world(order),
        why="args ask for fewer ranks than the slot has GPUs, and the rest stays idle",
        do="Name fewer GPUs in slot, or leave tensor-parallel-size out",
        source="vLLM 0.32 config/parallel.py",
    ),
    Trouble(
        _GPU_ENGINES,
        refuse=False,
        when=lambda order: any(map(has_two_tiles, order.cards)),
        why="Level Zero counts each of this card's two tiles as a device, so the mask may name "
        "tiles of another card",
        do='Write env = { ZE_FLAT_DEVICE_HIERARCHY = "COMPOSITE" }, or one instance for each tile '
        'with engine = "command"',
        source="Level Zero specification, ZE_FLAT_DEVICE_HIERARCHY",
    ),
    Trouble(
        ("vllm-xpu",),
        refuse=False,
        when=lambda order: DG2 in generations(order),
        why="Intel's own vLLM image sends A770 users to ipex-llm; upstream was seen to run, with "
        "pauses",
        do='Compare with engine = "ipex-llm"',
        source="intel/llm-scaler vllm/README.md; intel/ipex-llm#13323",
    ),
    Trouble(
        ("vllm-xpu",),
        refuse=False,
        when=lambda order: order.instance.weight_only == "sym_int4",
        why="online INT4 is only in llm-scaler's vLLM",
        do='Use its image or build, or write weight_only = "fp8"',
        source="intel/llm-scaler vllm/README.md 2.2",
    ),
    Trouble(
        ("vllm-xpu",),
        refuse=False,
        when=lambda order: order.instance.dtype == "float32",
        why="its attention kernel has no float32, a slower one takes its place",
        do='Write dtype = "float16" or "bfloat16"',
        source="vLLM 0.32 platforms/xpu.py",
    ),
)


def troubles(
    order: Order, environment: Mapping[str, str] | None = None
) -> tuple[tuple[str, ...], tuple[Refusal, ...]]:
    """Warnings and refusals for an order; `environment` is the user's, where it is known."""
    engine = order.instance.engine
    found = [row for row in TROUBLES if engine in row.engines and row.when(order)]
    warnings = [_said(row.why, row.do, row.source) for row in found if not row.refuse]
    together = engine == "ipex-llm" and len(order.placement.gpus) > 1
    if together and environment is not None and "CCL_ROOT" not in environment:
        warnings.append(
            _said(
                "its oneCCL is not in the environment, and ranks cannot meet without",
                "Source /opt/intel/1ccl-wks/setvars.sh (or oneAPI's) in the shell that starts "
                "slotdeck: its variables are passed on",
                "intel/ipex-llm docker/llm/serving/xpu/docker/start-vllm-service.sh",
            )
        )
    refusals = tuple(
        Refusal(order.instance.name, f"{row.why} ({row.source})", row.do)
        for row in found
        if row.refuse
    )
    return tuple(warnings), refusals


def _said(why: str, do: str, source: str) -> str:
    return f"{why} ({source}). {do}"
