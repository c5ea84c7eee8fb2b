"""Profiles and known troubles: well-formed data, and what they say for real combinations."""

import re
from dataclasses import replace

import pytest

from engine.core.layout import VARIABLE, Instance, Scalar
from engine.core.topology import Gpu
from engine.drivers.driver import Order
from engine.drivers.level_zero import (
    BATTLEMAGE,
    DG2,
    FLEX,
    MAX,
    affinity_mask,
    generation,
    has_two_tiles,
)
from engine.drivers.profiles import (
    CORE_CPUS,
    OPT_IN,
    PROFILES,
    TENSOR_PARALLEL,
    is_core_cpu,
    offered,
    profile_for,
)
from engine.drivers.registry import DRIVERS
from engine.drivers.troubles import TROUBLES, troubles
from engine.host import pci_names
from tests.drivers.orders import A770, B60, order


def values(engine: str, cards: set[str], ranks: int, **rest: object) -> dict[str, str]:
    made = profile_for(engine, cards, tensor_parallel=ranks, **rest)  # type: ignore[arg-type]
    return {name: setting.value for name, setting in made.items()}


def test_every_row_is_whole() -> None:
    assert len({(row.engine, row.cards, row.key) for row in PROFILES}) == len(PROFILES)
    for row in PROFILES:
        assert row.engine in DRIVERS
        assert set(row.cards) <= {DG2, FLEX, MAX, BATTLEMAGE}
        assert set(row.scope) <= {TENSOR_PARALLEL, CORE_CPUS, OPT_IN}
        assert re.fullmatch(VARIABLE, row.name)
        assert row.value
        assert row.why
        assert "/" in row.source or " " in row.source
        assert row.name not in DRIVERS[row.engine].refused_env
    for trouble in TROUBLES:
        assert set(trouble.engines) <= set(DRIVERS)
        assert trouble.why
        assert trouble.do
        assert trouble.source


def test_ipex_llm_on_arc() -> None:
    one = values("ipex-llm", {DG2}, 1)
    assert one == {
        "USE_XETLA": "OFF",
        "SYCL_CACHE_PERSISTENT": "1",
        "SYCL_PI_LEVEL_ZERO_USE_IMMEDIATE_COMMANDLISTS": "2",
        "VLLM_USE_V1": "0",
    }
    two = values("ipex-llm", {DG2}, 2)
    assert two == one | {
        "TORCH_LLM_ALLREDUCE": "0",
        "CCL_SAME_STREAM": "1",
        "CCL_BLOCKING_WAIT": "0",
        "FI_PROVIDER": "shm",
        "CCL_ATL_TRANSPORT": "ofi",
        "CCL_ZE_IPC_EXCHANGE": "sockets",
        "CCL_ATL_SHM": "1",
        "CCL_WORKER_COUNT": "2",
    }
    assert values("ipex-llm", {BATTLEMAGE}, 2) == two | {"CCL_WORKER_COUNT": "1"}
    assert values("ipex-llm", {DG2}, 2, core_cpu=True) == two | {"CCL_DG2_USM": "1"}
    assert values("ipex-llm", {MAX}, 2) == values("ipex-llm", set(), 2) == {}
    source = profile_for("ipex-llm", {DG2}, tensor_parallel=2)["CCL_WORKER_COUNT"].source
    assert source.startswith("profile: ipex-llm on Arc A-series (intel/ipex-llm docs/")


def test_switches_are_only_set_when_asked_for() -> None:
    assert values("vllm-xpu", {BATTLEMAGE}, 2) == {}
    asked = ["CCL_TOPO_P2P_ACCESS=0", "CCL_ALLREDUCE=ring"]
    assert values("vllm-xpu", {BATTLEMAGE}, 2, opt_in=asked) == {
        "CCL_TOPO_P2P_ACCESS": "0",
        "CCL_ALLREDUCE": "ring",
    }
    assert values("vllm-xpu", {DG2}, 1, opt_in=asked) == {}
    keys = [row.key for row in offered("vllm-xpu", {BATTLEMAGE}, tensor_parallel=2)]
    assert {*asked, "CCL_ENABLE_SYCL_KERNELS=0", "CCL_TOPO_P2P_ACCESS=1"} <= set(keys)
    assert offered("vllm-cpu", (), tensor_parallel=1) == ()


@pytest.mark.parametrize(
    ("model", "is_core"),
    [
        ("Intel(R) Core(TM) i9-13900K", True),
        ("13th Gen Intel(R) Core(TM) i7-13700", True),
        ("Intel(R) Xeon(R) w5-3435X", False),
        ("AMD EPYC 7763 64-Core Processor", False),
        (None, False),
    ],
)
def test_core_cpus(model: str | None, is_core: bool) -> None:
    assert is_core_cpu(replace(order(Instance(name="a")), cpu_model=model)) == is_core


@pytest.mark.parametrize("device", sorted(pci_names.INTEL_GPUS))
def test_every_card_that_we_know_by_name_has_a_generation(device: str) -> None:
    name = pci_names.INTEL_GPUS[device].name
    made = generation(replace(A770, device=device))
    words = {"Arc A": DG2, "Arc Pro A": DG2, "Arc B": BATTLEMAGE, "Arc Pro B": BATTLEMAGE}
    words |= {"Data Center GPU Flex": FLEX, "Data Center GPU Max": MAX}
    assert made == next(kind for start, kind in words.items() if name.startswith(start))
    tiles = name.startswith(("Data Center GPU Max 13", "Data Center GPU Max 14"))
    tiles = tiles or name == "Data Center GPU Max 1550"
    assert has_two_tiles(replace(A770, device=device)) == tiles


def test_the_mask_counts_what_level_zero_sees() -> None:
    cards = [replace(A770, index=index) for index in range(4)]
    assert affinity_mask(cards, [0, 3]) == "0,3"
    cards[0] = replace(cards[0], driver=None)
    assert affinity_mask(cards, [1, 3]) == "0,2"
    assert affinity_mask(cards, [0]) is None
    cards[1] = replace(cards[1], may_open=False)
    cards.append(replace(A770, index=4, vendor="10de", driver="nvidia"))
    assert affinity_mask(cards, [3]) == "1"
    assert affinity_mask(cards, [4]) is None
    assert generation(cards[4]) is None


AVX2 = frozenset({"avx2"})
AMX = frozenset({"avx2", "avx512f", "avx512bw", "amx_tile"})


def ask(
    engine: str,
    *,
    cards: tuple[Gpu, ...] = (),
    flags: frozenset[str] | None = AMX,
    nodes: tuple[str, ...] = ("8-11",),
    args: dict[str, Scalar] | None = None,
    **keys: str,
) -> Order:
    wish = Instance(name="a", engine=engine, args=args or {}, **keys)  # type: ignore[arg-type]
    pus = ",".join(nodes)
    return replace(order(wish, cards=cards, nodes=nodes, pus=pus), cpu_flags=flags)


@pytest.mark.parametrize(
    ("one", "word"),
    [
        (ask("ipex-llm", weight_only="fp8"), "dies at the first"),
        (ask("ipex-llm", weight_only="nf4"), "dies at the first"),
        (ask("ipex-llm", weight_only="fp6"), "dies at the first"),
        (ask("vllm-cpu", weight_only="fp8", flags=AVX2), "needs AMX"),
        (ask("vllm-cpu", weight_only="fp8", dtype="float32"), "bfloat16 or float16 only"),
        (
            ask("vllm-cpu", nodes=("0-1", "2-3", "4-5", "6-7", "8-9", "10-11"), args={"tp": 6}),
            "no other number",
        ),
        (ask("vllm-xpu", cards=(replace(A770, vendor="10de", driver="i915"),)), "another vendor"),
        (ask("vllm-xpu", cards=(replace(B60, driver=None),)), "no driver"),
        (ask("vllm-xpu", cards=(B60,), args={"tp": 2}), "more ranks"),
        (ask("vllm-xpu", cards=(B60,), args={"data-parallel-size": 2}), "more ranks"),
    ],
)
def test_refusals(one: Order, word: str) -> None:
    _, (refusal,) = troubles(one)
    assert word in refusal.why
    assert refusal.instance == "a"
    assert refusal.do


@pytest.mark.parametrize(
    ("one", "word"),
    [
        (ask("ipex-llm", dtype="float16"), "bfloat16 where float16"),
        (ask("ipex-llm", args={"load_in_low_bit": "fp8_e5m2"}), "will never be ready"),
        (ask("ipex-llm", cards=(replace(A770, driver="xe"),)), "i915"),
        (ask("ipex", dtype="bfloat16", flags=AVX2), "cannot pack"),
        (ask("ipex", weight_only="int4", flags=AVX2), "7 times"),
        (ask("vllm-cpu", weight_only="fp8", flags=None), "not known"),
        (ask("vllm-cpu", nodes=("0-1", "2-3")), "first PU"),
        (ask("vllm-cpu", nodes=("0-2", "4-5"), args={"tp": 2}), "stay idle"),
        (ask("vllm-xpu", cards=(B60, B60), args={"tp": 1}), "stays idle"),
        (ask("vllm-xpu", cards=(replace(B60, may_open=False),)), "may not open"),
        (ask("vllm-xpu", cards=(replace(B60, device="0bd5"),)), "two tiles"),
        (ask("vllm-xpu", cards=(A770,)), "ipex-llm"),
        (ask("vllm-xpu", cards=(B60,), weight_only="sym_int4"), "llm-scaler's"),
        (ask("vllm-xpu", cards=(B60,), dtype="float32"), "no float32"),
    ],
)
def test_warnings(one: Order, word: str) -> None:
    (warning,), refusals = troubles(one)
    assert word in warning
    assert refusals == ()


@pytest.mark.parametrize(
    "one",
    [
        ask("torch", dtype="bfloat16", flags=AVX2),
        ask("ipex", dtype="bfloat16", flags=None),
        ask("ipex", dtype="bfloat16"),
        ask("vllm-cpu", weight_only="fp8"),
        ask("vllm-cpu", nodes=("0-1", "2-3"), args={"tp": 2}),
        ask("vllm-cpu", nodes=("0-1", "2-3"), args={"tp": 3}),
        ask("vllm-cpu", nodes=("0-5",), args={"tp": 6}, flags=AVX2),
        ask("ipex-llm", weight_only="fp8", cards=(A770, A770)),
        ask("ipex-llm", weight_only="sym_int4"),
        # The layout's own args win, whatever the key says.
        ask("ipex-llm", weight_only="fp8", args={"load-in-low-bit": "sym_int4"}),
        ask("vllm-xpu", cards=(B60, B60)),
        ask("command", cards=(replace(A770, vendor="10de", driver=None),)),
    ],
)
def test_no_trouble(one: Order) -> None:
    assert troubles(one) == ((), ())


def test_ipex_llm_needs_its_oneccl_in_the_environment() -> None:
    two = ask("ipex-llm", cards=(A770, A770))
    (warning,), _ = troubles(two, {"HOME": "/root"})
    assert "setvars.sh" in warning
    assert troubles(two, {"CCL_ROOT": "/opt/intel/1ccl-wks"}) == ((), ())
    assert troubles(ask("ipex-llm", cards=(A770,)), {}) == ((), ())
