"""Advice says what the published rules say, and nothing that would not run."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cli.advise import facts
from engine.core.advice import advise
from engine.core.advising.facts import longest_for_two
from engine.core.advising.gpu import cards_to_use
from engine.core.advising.trial import Trial
from engine.core.advising.values import Advice, Ask, Proposal
from engine.core.cpuset import CpuSet, NodeSet
from engine.core.layout import parse_layout
from engine.core.placement import Plan, place
from engine.core.placing.held import Held
from engine.core.strangers import Stranger
from engine.core.synthetic import parse_synthetic
from engine.core.topology import Machine
from engine.service.model_sizes import ModelSizes
from engine.service.planning import TRAITS
from tests.core.model_configs import (
    DEEPSEEK_V3,
    LLAMA_31_8B,
    QWEN3_30B_A3B,
    QWEN25_14B,
    QWEN25_32B,
    SMOLLM2_135M,
)
from tests.machines_by_hand import GIB, MACHINES, build

LLAMA_70B = {
    **LLAMA_31_8B,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "hidden_size": 8192,
    "intermediate_size": 28672,
}
MODELS: dict[str, dict[str, Any]] = {
    "0.1B": SMOLLM2_135M,
    "8B": LLAMA_31_8B,
    "14.8B": QWEN25_14B,
    "33B": QWEN25_32B,
    "70B": LLAMA_70B,
    "30B-A3B": QWEN3_30B_A3B,
    "671B": DEEPSEEK_V3,
}
Asked = Callable[..., Advice]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one directory a model, of which each holds its config.json alone."""
    base = tmp_path_factory.mktemp("models")
    for name, config in MODELS.items():
        (base / name).mkdir()
        (base / name / "config.json").write_text(json.dumps(config))
    return base


def sizes(models: Path) -> ModelSizes:
    return ModelSizes(models, models)


@pytest.fixture(scope="module")
def asked(models: Path) -> Asked:
    def ask(model: str, machine: Machine | str, **more: Any) -> Advice:
        held = more.pop("held", None)
        if isinstance(machine, str):
            machine = parse_synthetic(machine)
        name = f"./{model}" if model in MODELS else model
        question = Ask(model=name, is_local=model in MODELS, **more)
        return advise(machine, question, facts(), sizes(models), held=held)

    return ask


def planned(one: Proposal, machine: Machine | str, models: Path, held: Held | None = None) -> Plan:
    if isinstance(machine, str):
        machine = parse_synthetic(machine)
    layout = parse_layout(one.layout, name=one.title)
    return place(machine, layout, held=held, traits=TRAITS, sizes=sizes(models))


def titles(answer: Advice) -> list[str]:
    return [one.title for one in answer.advice]


# What comes first

TWO_BY_TWO = "pack:2 numa:2 core:32 pu:2 mem:128GiB"
FOUR = "pack:4 core:64 pu:2 mem:256GiB"
LAPTOP = "pack:1 core:4 mem:16GiB"


def cards(count: int, gib: int = 16) -> str:
    return f"pack:1 core:32 pu:2 mem:128GiB gpu:{count}*{gib}GiB"


@pytest.mark.parametrize(
    ("model", "machine", "goal", "first", "replicas"),
    [
        # The rule for 16 GB cards and FP8: 7-9B one, 14B two, 33B four.
        ("8B", cards(2), "throughput", "One replica per card, FP8 weights", 2),
        ("8B", cards(4), "latency", "One replica per card, FP8 weights", 4),
        ("14.8B", cards(2), "throughput", "Tensor parallel over 2 cards (TP2), FP8 weights", 1),
        ("14.8B", cards(8), "latency", "Tensor parallel over 2 cards (TP2), FP8 weights", 4),
        ("33B", cards(4), "throughput", "Tensor parallel over 4 cards (TP4), FP8 weights", 1),
        ("33B", cards(8), "throughput", "Tensor parallel over 4 cards (TP4), FP8 weights", 2),
        ("33B", cards(2), "throughput", "Tensor parallel over 2 cards (TP2), INT4 weights", 1),
        ("70B", cards(8), "throughput", "Tensor parallel over 8 cards (TP8), FP8 weights", 1),
        ("0.1B", cards(2), "throughput", "One replica per card, plain weights", 2),
        # 24 GB hold more.
        ("14.8B", cards(2, 24), "throughput", "One replica per card, FP8 weights", 2),
        ("33B", cards(4, 24), "throughput", "Tensor parallel over 2 cards (TP2), FP8 weights", 2),
        ("30B-A3B", cards(4, 24), "latency", "Tensor parallel over 2 cards (TP2), FP8 weights", 2),
        # CPUs: a replica on each node, several of a very small model.
        ("8B", TWO_BY_TWO, "throughput", "One replica per NUMA node, INT8 weights", 4),
        ("8B", TWO_BY_TWO, "latency", "One replica per NUMA node, INT8 weights", 4),
        ("14.8B", FOUR, "throughput", "One replica per NUMA node, INT8 weights", 4),
        ("70B", FOUR, "latency", "One replica per NUMA node, INT8 weights", 4),
        ("30B-A3B", FOUR, "throughput", "One replica per NUMA node, plain weights", 4),
        ("0.1B", FOUR, "throughput", "8 replicas per NUMA node, 8 cores each, INT8 weights", 32),
        ("0.1B", FOUR, "latency", "One replica per NUMA node, INT8 weights", 4),
        ("0.1B", LAPTOP, "throughput", "One instance on all cores, INT8 weights", 1),
        ("8B", LAPTOP, "latency", "One instance on all cores, INT8 weights", 1),
        # Across nodes only where nothing smaller holds it, and over near ones first.
        (
            *("70B", "pack:2 numa:2 core:32 mem:64GiB", "throughput"),
            *("One replica per package, INT8 weights", 2),
        ),
        (
            *("70B", "pack:4 core:64 mem:48GiB", "throughput"),
            *("One instance over 2 NUMA nodes, INT8 weights", 2),
        ),
        (
            *("671B", "pack:4 core:64 mem:256GiB", "throughput"),
            *("One instance over 3 NUMA nodes, stored weights", 1),
        ),
    ],
)
def test_the_first_advice(
    asked: Asked, model: str, machine: str, goal: str, first: str, replicas: int
) -> None:
    best = asked(model, machine, goal=goal).advice[0]
    assert (best.title, best.replicas, best.fits) == (first, replicas, True)


def test_uneven_nodes_are_taken_as_they_are(asked: Asked, models: Path) -> None:
    machine = build([43, 42, 42, 43, 42, 42], nodes_per_package=3, smt=2)
    answer = asked("8B", machine)
    best = answer.advice[0]
    assert (best.title, best.replicas) == ("One replica per NUMA node, INT8 weights", 6)
    assert best.per_replica.cores == 42
    assert [len(at.pus) for at in planned(best, machine, models).placements] == [
        *(43, 42, 42),
        *(43, 42, 42),
    ]
    # Never six ranks: a split is within a package, and only where the heads allow it.
    assert all("TP" not in one.title for one in answer.advice)


def test_memory_only_and_memoryless_nodes(asked: Asked, models: Path) -> None:
    fed = asked("8B", MACHINES["memory-only"]).advice[0]
    assert fed.replicas == 2
    machine = MACHINES["memoryless"]
    best = asked("8B", machine).advice[0]
    nodes = {at.memory.nodes for at in planned(best, machine, models).placements}
    assert nodes == {"0", "2"}  # node 1 would read another's memory


def test_a_cpuset_is_respected(asked: Asked, models: Path) -> None:
    machine = MACHINES["narrowed"]
    best = asked("8B", machine).advice[0]
    (at,) = planned(best, machine, models).placements
    assert (str(at.pus), at.memory.nodes) == ("0-1", "0")


def test_strangers_are_left_alone(asked: Asked, models: Path) -> None:
    machine = replace(MACHINES["gpus"], live=False)
    pus = machine.numa_nodes[0].cpus
    other = Stranger(7, "job", 0, "root", pus, None, (0,), 1, 8 * GIB, 1.0)
    held = Held({}, {}, strangers=(other,))
    answer = asked("8B", machine, held=held)
    for one in answer.advice:
        for at in planned(one, machine, models, held).placements:
            assert 0 not in at.gpus
            assert at.gpus or not at.pus & pus
    assert any("NUMA" not in one.title for one in answer.advice)


# The goal


def test_the_goal_changes_the_order(asked: Asked) -> None:
    for_all = titles(asked("8B", TWO_BY_TWO))
    for_one = titles(asked("8B", TWO_BY_TWO, goal="latency"))
    package = "One replica per package, INT8 weights"
    alone = "One instance on one NUMA node, the others left free, INT8 weights"
    assert for_all.index(alone) < for_all.index(package)
    assert for_one.index(package) < for_one.index(alone)
    assert "One big instance on package 0, INT8 weights" in for_one


def test_the_goal_decides_how_many_sequences_are_admitted(asked: Asked) -> None:
    def admitted(one: Proposal) -> object:
        return parse_layout(one.layout, name="").instances[0].args["max-num-seqs"]

    many, one = asked("8B", cards(2)), asked("8B", cards(2), goal="latency")
    assert admitted(many.advice[0]) == many.advice[0].per_replica.sequences == 9
    assert admitted(one.advice[0]) == 1
    assert admitted(asked("8B", cards(2), sequences=4).advice[0]) == 4


def test_sequences_keep_to_what_is_free_now(asked: Asked) -> None:
    machine = "pack:1 core:16 mem:64GiB"
    busy = Held({}, {}, free_bytes={0: 12 * GIB})
    free, tight = asked("8B", machine).advice[0], asked("8B", machine, held=busy).advice[0]
    assert any("max-num-seqs = 16: the torch worker's own" in one for one in free.reasons)
    assert any("as many as fit" in one for one in tight.reasons)
    assert not any("is free now" in warning for warning in tight.warnings)


def test_a_pair_of_cards_only_for_latency_and_with_its_price(asked: Asked) -> None:
    assert not any("TP2" in title for title in titles(asked("8B", cards(2))))
    pair = asked("8B", cards(2), goal="latency").advice[1]
    assert pair.title == "Two cards for each replica (TP2), FP8 weights"
    told = " ".join(pair.reasons)
    for figure in ("100.48 ms", "69.22 ms", "15.19 ms", "21.78 ms", "#12190", "up to 5 tokens"):
        assert figure in told
    assert "tokens/s" not in told


def test_the_break_even_is_arithmetic() -> None:
    longest = longest_for_two()
    assert longest == 5
    for tokens in range(1, 40):
        one, two = (
            first + (tokens - 1) * each for first, each in ((100.48, 15.19), (69.22, 21.78))
        )
        assert (two < one) == (tokens <= longest)
    assert longest_for_two((100.0, 20.0), (90.0, 10.0)) is None
    assert longest_for_two((90.0, 10.0), (100.0, 20.0)) == 0


# Engines and forms


def test_the_default_engine_and_its_reason(asked: Asked) -> None:
    answer = asked("8B", cards(2))
    assert answer.engines[0].startswith("on cards vllm-xpu: ")
    assert answer.engines[1].startswith("on CPUs torch: ")
    arc = asked("8B", MACHINES["gpus"], families=dict.fromkeys(range(5), "Arc A-series"))
    assert 'engine = "ipex-llm"' in arc.advice[0].layout
    # Ours downloads nothing.
    fetched = asked("owner/name", "pack:2 core:8 mem:64GiB")
    assert 'engine = "vllm-cpu"' in fetched.advice[0].layout


def test_one_engine_alone(asked: Asked) -> None:
    for engine in ("torch", "ipex", "vllm-cpu", "vllm-xpu", "ipex-llm"):
        answer = asked("8B", cards(2), engine=engine)
        assert answer.advice
        assert all(f'engine = "{engine}"' in one.layout for one in answer.advice)
    without = asked("8B", FOUR, engine="vllm-xpu")
    assert not without.advice
    assert "no card is free here" in without.rejected[0].why


def test_the_processor_decides_the_dtype(asked: Asked) -> None:
    def first(engine: str, *flags: str) -> str:
        return asked("8B", FOUR, engine=engine, cpu_flags=frozenset(flags)).advice[0].layout

    assert 'dtype = "bfloat16"' in first("torch", "avx2", "avx512bw", "amx_bf16", "amx_tile")
    assert "dtype" not in first("torch", "avx2")
    assert 'dtype = "float32"' in first("ipex", "avx2")
    assert 'weight_only = "fp8"' in first("vllm-cpu", "amx_tile")
    assert "weight_only" not in first("vllm-cpu", "avx2")
    unknown = asked("8B", FOUR).unknown
    assert any("AMX" in line for line in unknown)


def test_weights_that_are_packed_already_stay_so(asked: Asked) -> None:
    answer = asked("671B", "pack:2 core:64 mem:2048GiB gpu:8*64GiB")
    assert answer.advice
    assert all("stored weights" in one.title for one in answer.advice)
    assert all("weight_only" not in one.layout for one in answer.advice)


def test_a_mixture_is_not_packed_by_our_engine(asked: Asked) -> None:
    best = asked("30B-A3B", FOUR).advice[0]
    assert "weight_only" not in best.layout
    assert any("experts" in reason for reason in best.reasons)


# What does not fit, and what is not known


def test_a_model_too_large_for_the_machine(asked: Asked) -> None:
    answer = asked("70B", "pack:1 core:8 mem:32GiB gpu:2*16GiB")
    assert answer.advice == ()
    told = " ".join(f"{one.why} {one.do}" for one in answer.rejected)
    assert "GiB" in told
    assert "weights" in told
    kinds = " ".join(one.title for one in answer.rejected)
    assert "card" in kinds
    assert "cores" in kinds


def test_a_context_that_does_not_fit_is_told_with_one_that_does(asked: Asked) -> None:
    answer = asked("8B", cards(1), context=100_000, engine="vllm-xpu")
    first = answer.rejected[0]
    assert first.title.startswith("One instance on the card, FP8")
    assert "KV cache" in first.why
    assert "context " in first.do
    longer = asked("8B", cards(1), context=200_000)
    assert not longer.advice
    assert "131,072" in longer.rejected[0].why


def test_a_longer_context_takes_more_cards(asked: Asked) -> None:
    best = asked("8B", cards(4), context=100_000, engine="vllm-xpu").advice[0]
    assert best.title == "Tensor parallel over 2 cards (TP2), FP8 weights"
    assert any(reason.startswith("only to fit: one card") for reason in best.reasons)


def test_a_model_that_is_not_here_gets_advice_by_structure(asked: Asked) -> None:
    answer = asked("owner/name", cards(4))
    assert titles(answer)[:3] == [
        "One replica per card, FP8 weights",
        "Tensor parallel over 2 cards (TP2), FP8 weights",
        "Tensor parallel over 4 cards (TP4), FP8 weights",
    ]
    for one in answer.advice:
        assert one.fits is None
        assert one.per_replica.longest_context is None
        assert "max-model-len" not in one.layout
    assert any("size" in line for line in answer.unknown)


def test_different_cards(asked: Asked, models: Path) -> None:
    """Only the large one holds it alone; two small ones hold it together."""
    base = parse_synthetic(cards(3))
    large = replace(base.gpus[0], memory_bytes=24 * GIB, name="large")
    machine = replace(base, gpus=(large, *base.gpus[1:]))
    answer = asked("14.8B", machine, engine="vllm-xpu")
    alone, together = answer.advice[:2]
    assert [at.gpus for at in planned(alone, machine, models).placements] == [(0,)]
    assert [at.gpus for at in planned(together, machine, models).placements] == [(1, 2)]


# Laws

specs = st.builds(
    lambda pack, numa, core, pu, mem, gpu: (
        f"pack:{pack} numa:{numa} core:{core} pu:{pu}" + (f" mem:{mem}GiB" if mem else "") + gpu
    ),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 24),
    st.integers(1, 2),
    st.sampled_from([0, 2, 12, 32, 64, 96, 256]),
    st.sampled_from(
        ["", "", " gpu:1*16GiB", " gpu:2*16GiB", " gpu:3*24GiB", " gpu:1", " gpu:5*48GiB"]
    ),
)
machines = st.one_of(
    specs.map(parse_synthetic), st.sampled_from(sorted(MACHINES)).map(MACHINES.__getitem__)
)


@given(
    machines,
    st.sampled_from([*MODELS, "owner/name"]),
    st.sampled_from(["throughput", "latency"]),
    st.sampled_from([None, None, "torch", "vllm-cpu", "vllm-xpu", "ipex-llm"]),
    st.sampled_from([None, None, 512, 8192, 40_000]),
    st.sampled_from([None, None, 1, 7]),
    st.booleans(),
)
def test_laws_of_advice(
    models: Path,
    asked: Asked,
    machine: Machine,
    model: str,
    goal: str,
    engine: str | None,
    context: int | None,
    sequences: int | None,
    with_stranger: bool,
) -> None:
    held = None
    if with_stranger:
        taken = CpuSet(min(core.pus) for core in machine.cores[:2])
        busy = (0,) if machine.gpus else ()
        held = Held(
            {},
            {8001: "other"},
            strangers=(Stranger(7, "x", 0, "y", taken, NodeSet(), busy, 1, GIB, 0.0),),
        )
    wish: dict[str, Any] = {
        "goal": goal,
        "engine": engine,
        "context": context,
        "sequences": sequences,
        "held": held,
    }
    answer = asked(model, machine, **wish)
    assert asked(model, machine, **wish) == answer, "not the same twice"
    assert answer.advice or answer.rejected, "silence"
    assert len({one.layout for one in answer.advice}) == len(answer.advice)
    for rejected in answer.rejected:
        assert rejected.title
        assert rejected.why
        assert rejected.do
    for one in answer.advice:
        plan = planned(one, machine, models, held)
        assert not plan.refusals, (one.layout, plan.refusals)
        assert len(plan.placements) == one.replicas
        pus = [pu for at in plan.placements for pu in at.pus]
        assert len(pus) == len(set(pus))
        assert CpuSet(pus) <= machine.pus.usable
        gpus = [gpu for at in plan.placements for gpu in at.gpus]
        assert len(gpus) == len(set(gpus))
        assert one.per_replica.cores >= 1
        assert one.reasons
        args = parse_layout(one.layout, name="").instances[0].args
        each = one.per_replica
        if one.fits and each.needs_bytes is not None:
            room = each.card_bytes or each.memory_bytes
            assert room is not None
            assert each.needs_bytes <= room
        if each.sequences is not None:
            assert each.sequences >= int(args["max-num-seqs"])
        if each.longest_context is not None:
            step = 256
            assert each.longest_context >= int(args["max-model-len"]) // step * step
        if sequences is not None:
            assert args["max-num-seqs"] == sequences
        if engine is not None:
            assert all(wish.engine == engine for wish in plan.wishes)


def test_cards_of_other_vendors_are_not_used(models: Path) -> None:
    base = parse_synthetic(cards(2))
    gpus = (replace(base.gpus[0], vendor="10de"), replace(base.gpus[1], integrated=True))
    machine = replace(base, gpus=gpus)
    trial = Trial(machine, Ask("./8B"), facts(), sizes(models))
    assert cards_to_use(trial) == []
