"""Every layout that is shipped: what it says, and what it comes to on a machine that it is for."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest

from engine.cli.layouts import checked
from engine.core.layout import Layout
from engine.core.synthetic import parse_synthetic
from engine.core.topology import Machine
from engine.layout_files import read_layout
from engine.service.orders import Planned, Surroundings
from engine.service.planning import plan_layout
from tests.machines_by_hand import build, uneven

FOLDER = Path(__file__).parents[2] / "layouts"
GUIDE = "arc-dual-tp2.toml"
"""The one file that lets a model run its own code, because the guide that it repeats does."""


@dataclass(frozen=True)
class Seat:
    """What one instance gets."""

    pus: str
    memory: str
    gpus: tuple[int, ...] = ()
    words: str = ""
    """Words that stand in its command line in this order, side by side."""
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A shipped file on a machine."""

    file: str
    machine: Machine
    seats: Mapping[str, Seat]
    warned: str = ""
    """Part of the one warning; nothing is warned of where it is empty."""


FOUR_SOCKETS = parse_synthetic("pack:4 core:64 pu:2 mem:256GiB")
SMALL = parse_synthetic("core:4 mem:16GiB")
CLUSTERS = replace(uneven(), live=False)


def elsewhere(machine: Machine, **cards: str) -> Machine:
    """Not this machine, with these cards."""
    gpus = tuple(replace(gpu, **cards) for gpu in machine.gpus)  # type: ignore[arg-type]
    return replace(machine, gpus=gpus, live=False)


# Cards as their documents drive them.
A770, B60 = {"driver": "i915"}, {"device": "e211", "name": "Arc Pro B60", "driver": "xe"}
TWO_A770 = elsewhere(build([24], smt=2, gpus_on=[0, 0]), **A770)
FOUR_A770 = elsewhere(build([32], smt=2, gpus_on=[0] * 4), **A770)
TWO_B60 = elsewhere(build([24], smt=2, gpus_on=[0, 0]), **B60)
XEON_AND_B60 = elsewhere(build([24, 24], smt=2, gpus_on=[1]), **B60)
LAPTOP = parse_synthetic("core:2 mem:8GiB")

_LENGTHS = "--max-model-len 2048 --max-num-batched-tokens 4000 --max-num-seqs 12"
_IPEX_LLM = "python -m ipex_llm.vllm.xpu.entrypoints.openai.api_server"
_FP8 = f"--device xpu --dtype float16 --enforce-eager --load-in-low-bit fp8 {_LENGTHS}"


def four(words: str) -> dict[str, Seat]:
    """The IPEX guide's four sockets of 64 cores."""
    return {
        "replica-0": Seat("0-63", "bind 0", words=words, env={"OMP_NUM_THREADS": "64"}),
        "replica-1": Seat("64-127", "bind 1", words=words),
        "replica-2": Seat("128-191", "bind 2", words=words),
        "replica-3": Seat("192-255", "bind 3", words=words, env={"OMP_NUM_THREADS": "64"}),
    }


CASES = [
    Case("demo.toml", LAPTOP, {"a": Seat("0", "bind 0"), "b": Seat("1", "bind 0")}),
    Case("packages-int8.toml", FOUR_SOCKETS, four("--dtype bfloat16 --weight-only int8")),
    Case("packages-bf16.toml", FOUR_SOCKETS, four("--dtype bfloat16 --weight-only none")),
    Case(
        "sub-numa-clusters.toml",
        CLUSTERS,
        {
            "replica-0": Seat(
                *("0-42", "bind 0"),
                words="--port 8001",
                env={"VLLM_CPU_OMP_THREADS_BIND": "0-41"},
            ),
            "replica-1": Seat(
                *("43-84", "bind 1"),
                words="--max-model-len 4096 --max-num-seqs 8",
                env={"VLLM_CPU_OMP_THREADS_BIND": "43-83"},
            ),
            "replica-2": Seat(
                *("85-126", "bind 2"),
                words="/opt/vllm-cpu/bin/vllm serve /models/Llama-3.1-8B-Instruct",
                env={"VLLM_CPU_OMP_THREADS_BIND": "85-125"},
            ),
        },
    ),
    Case(
        "package-whole.toml",
        CLUSTERS,
        {"large": Seat("0-126", "interleave 0-2", words="--weight-only int8 --threads 127")},
        warned="spans NUMA nodes 0-2",
    ),
    Case(
        "arc-single.toml",
        TWO_A770,
        {"a": Seat("0-11", "bind 0", (0,), _FP8, {"ZE_AFFINITY_MASK": "0", "USE_XETLA": "OFF"})},
    ),
    Case(
        "arc-dual-replicas.toml",
        TWO_A770,
        {
            "replica-0": Seat("0-11", "bind 0", (0,), _FP8, {"ZE_AFFINITY_MASK": "0"}),
            "replica-1": Seat("12-23", "bind 0", (1,), _FP8, {"ZE_AFFINITY_MASK": "1"}),
        },
    ),
    Case(
        GUIDE,
        TWO_A770,
        {
            "tp2": Seat(
                *("0-23", "bind 0", (0, 1)),
                words=f"{_IPEX_LLM} --served-model-name Llama-3.1-8B-Instruct --port 8000 "
                "--model /models/Llama-3.1-8B-Instruct --trust-remote-code "
                f"--gpu-memory-utilization 0.9 {_FP8} --tensor-parallel-size 2",
                env={"ZE_AFFINITY_MASK": "0,1", "CCL_WORKER_COUNT": "2", "FI_PROVIDER": "shm"},
            )
        },
    ),
    Case(
        "arc-dual-tp2-vllm.toml",
        TWO_B60,
        {
            "tp2": Seat(
                *("0-23", "bind 0", (0, 1)),
                words=f"--quantization fp8 --gpu-memory-utilization 0.9 --block-size 64 "
                f"--enforce-eager {_LENGTHS} --tensor-parallel-size 2 "
                "--distributed-executor-backend mp",
                env={"ZE_AFFINITY_MASK": "0,1", "VLLM_WORKER_MULTIPROC_METHOD": "spawn"},
            )
        },
    ),
    Case(
        "arc-quad-tp4.toml",
        FOUR_A770,
        {
            "tp4": Seat(
                *("0-31", "bind 0", (0, 1, 2, 3)),
                words=f"{_FP8} --tensor-parallel-size 4 --host 127.0.0.1",
                env={"ZE_AFFINITY_MASK": "0,1,2,3"},
            )
        },
    ),
    Case(
        "cpu-and-gpu.toml",
        XEON_AND_B60,
        {
            "large": Seat(
                *("24-27", "bind 1", (0,)),
                words="/opt/vllm-xpu/bin/vllm serve /models/Llama-3.1-8B-Instruct",
                env={"ZE_AFFINITY_MASK": "0"},
            ),
            "small-0": Seat("0-23", "bind 0", words="--threads 24"),
            "small-1": Seat("28-47", "bind 1", words="--threads 20"),
        },
    ),
    Case(
        "ab-single.toml",
        TWO_A770,
        {"a": Seat("0-11", "bind 0", (0,), f"{_FP8} --tensor-parallel-size 1")},
    ),
    Case(
        "ab-dual.toml",
        TWO_A770,
        {"a": Seat("0-23", "bind 0", (0, 1), f"{_FP8} --tensor-parallel-size 2")},
    ),
    Case("ab-float32.toml", SMALL, {"m": Seat("1", "bind 0", words="--dtype float32")}),
    Case("ab-int8.toml", SMALL, {"m": Seat("1", "bind 0", words="--weight-only int8")}),
    Case("ab-one-wide.toml", SMALL, {"m": Seat("1-2", "bind 0", words="--threads 2")}),
    Case("ab-two-narrow.toml", SMALL, {"m0": Seat("1", "bind 0"), "m1": Seat("2", "bind 0")}),
    Case(
        "command-llama-cpp.toml",
        XEON_AND_B60,
        {
            "replica-0": Seat(
                *("0-15", "bind 0"),
                words="llama-server --model /models/qwen3-8b-q4_k_m.gguf --host 127.0.0.1 "
                "--port 8001 --threads 16 --numa numactl --load-mode none --ctx-size 8192 "
                "--parallel 4 --metrics",
            ),
            "replica-1": Seat("24-39", "bind 1", words="--port 8002 --threads 16"),
        },
    ),
    Case(
        "command-openvino.toml",
        XEON_AND_B60,
        {
            "replica-0": Seat("0-23", "bind 0", words="ovms --rest_port 8001"),
            "replica-1": Seat(
                *("24-47", "bind 1"),
                words="--rest_port 8002 --rest_bind_address 127.0.0.1 --source_model "
                "OpenVINO/Qwen3-8B-int4-ov --model_name OpenVINO/Qwen3-8B-int4-ov",
            ),
        },
    ),
    Case(
        "command-sglang.toml",
        XEON_AND_B60,
        {
            "replica-0": Seat(
                *("0-23", "bind 0"),
                words="env SGLANG_CPU_OMP_THREADS_BIND=0-23 python -m sglang.launch_server",
                env={"SGLANG_USE_CPU_ENGINE": "1"},
            ),
            "replica-1": Seat(
                *("24-47", "bind 1"),
                words="env SGLANG_CPU_OMP_THREADS_BIND=24-47 python -m sglang.launch_server "
                "--model-path /models/Llama-3.2-3B-Instruct --device cpu --host 127.0.0.1 "
                "--port 8002 --tp 1 --disable-overlap-schedule",
            ),
        },
    ),
]


def layout_of(name: str) -> Layout:
    return checked(read_layout(str(FOLDER / name)))


def planned(case: Case, tmp_path: Path) -> dict[str, Planned]:
    around = Surroundings({}, tmp_path)
    plan = plan_layout(case.machine, layout_of(case.file), around, base=str(FOLDER))
    assert plan.refusals == ()
    return {one.placement.instance: one for one in plan.planned}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_a_shipped_layout_comes_to_what_it_says(case: Case, tmp_path: Path) -> None:
    got = planned(case, tmp_path)
    assert list(got) == list(case.seats)
    for name, seat in case.seats.items():
        at, command = got[name].placement, got[name].command
        memory = f"{at.memory.policy} {at.memory.nodes}"
        assert (str(at.pus), memory, at.gpus) == (seat.pus, seat.memory, seat.gpus)
        assert seat.words in shlex.join(command.argv)
        env = command.plain_env()
        assert {key: env.get(key) for key in seat.env} == dict(seat.env)
    warnings = {words for one in got.values() for words in one.placement.warnings}
    assert bool(warnings) == bool(case.warned), warnings
    assert all(case.warned in words for words in warnings)


def test_every_shipped_layout_is_in_the_table() -> None:
    shipped = sorted(path.name for path in FOLDER.glob("*.toml"))
    assert sorted(case.file for case in CASES) == shipped


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_a_shipped_layout_is_short_and_says_its_idea_first(case: Case) -> None:
    text = (FOLDER / case.file).read_text()
    lines = text.splitlines()
    # A whole sentence, for somebody who looks for the right file at night.
    assert re.match(r"# [A-Z].{30,}[.?]$", lines[0]), lines[0]
    assert "schema = 1" in lines
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 99
    layout = layout_of(case.file)
    assert layout.name != case.file
    assert layout.expect is None
    for wish in layout.instances:
        assert wish.trust_remote_code == (case.file == GUIDE)
        assert wish.host == ("0.0.0.0" if case.file == GUIDE else "127.0.0.1")
        assert wish.allow_degraded is False
    if case.file == GUIDE:
        said = text.index("trust_remote_code = true")
        assert "DANGER" in text[:said]


def test_the_pair_to_compare_differs_in_the_slot_alone() -> None:
    (one,), (two,) = (layout_of(f"ab-{which}.toml").instances for which in ("single", "dual"))
    assert one.slot != two.slot
    assert msgspec.structs.replace(two, slot=one.slot) == one
