"""The exact command lines of the vLLM engines, word for word, and the environment beside them."""

import shlex
from dataclasses import replace

import pytest

from engine.core.command import Command, explain
from engine.core.errors import LayoutError
from engine.core.layout import Instance, Scalar
from engine.drivers.driver import Order
from engine.drivers.registry import DRIVERS
from tests.drivers.orders import A770, B60, order


def wish(engine: str, **keys: object) -> Instance:
    return Instance(name="a", engine=engine, **keys)  # type: ignore[arg-type]


def command(one: Order) -> Command:
    return DRIVERS[one.instance.engine].command(one)


def line(made: Command) -> str:
    return shlex.join(made.argv)


def test_the_guides_line_for_two_a770_comes_out_word_for_word() -> None:
    lengths: dict[str, Scalar] = {
        "max-model-len": 2048,
        "max-num-batched-tokens": 4000,
        "max-num-seqs": 12,
    }
    asked = wish(
        "ipex-llm",
        args=lengths,
        weight_only="fp8",
        dtype="float16",
        trust_remote_code=True,
        host="0.0.0.0",
    )
    one = replace(order(asked, cards=(A770, A770), python="python"), model="MODEL")
    one = replace(one, served_name="NAME", placement=replace(one.placement, port=8000))
    guide = (
        "python -m ipex_llm.vllm.xpu.entrypoints.openai.api_server --served-model-name NAME "
        "--port 8000 --model MODEL --trust-remote-code --gpu-memory-utilization 0.9 --device xpu "
        "--dtype float16 --enforce-eager --load-in-low-bit fp8 --max-model-len 2048 "
        "--max-num-batched-tokens 4000 --max-num-seqs 12 --tensor-parallel-size 2"
    )
    assert line(command(one)) == guide
    # The guide's engine listens on every address; unless that is asked for, ours does not.
    private = replace(one, instance=wish_of(one, host="127.0.0.1"))
    assert line(command(private)) == f"{guide} --host 127.0.0.1"
    careful = replace(one, instance=wish_of(one, trust_remote_code=False))
    assert line(command(careful)) == guide.replace(" --trust-remote-code", "")


def wish_of(one: Order, **keys: object) -> Instance:
    return Instance(
        **{**{k: getattr(one.instance, k) for k in Instance.__struct_fields__}, **keys}
    )


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (
            order(wish("vllm-cpu")),
            "/opt/bin/vllm serve /models/m --host 127.0.0.1 --port 8002 "
            "--served-model-name served --dtype auto --enforce-eager",
        ),
        (
            order(
                wish(
                    "vllm-cpu",
                    dtype="bfloat16",
                    weight_only="fp8",
                    trust_remote_code=True,
                    args={
                        "max-num-seqs": 4,
                        "tp": 2,
                        "max_model_len": 1024,
                        "seed": 1,
                        "enforce-eager": False,
                    },
                ),
                nodes=("8-9", "10-11"),
                python="python3",
                model="owner/name",
            ),
            "vllm serve owner/name --host 127.0.0.1 --port 8002 --served-model-name served "
            "--dtype bfloat16 --quantization fp8 --max-model-len 1024 --max-num-seqs 4 "
            "--tensor-parallel-size 2 --distributed-executor-backend mp --trust-remote-code "
            "--seed 1",
        ),
        (
            order(wish("vllm-xpu", dtype="float16"), cards=(B60,)),
            "/opt/bin/vllm serve /models/m --host 127.0.0.1 --port 8002 "
            "--served-model-name served --dtype float16 --gpu-memory-utilization 0.9 "
            "--block-size 64 --enforce-eager --tensor-parallel-size 1",
        ),
        (
            order(
                wish(
                    "vllm-xpu",
                    dtype="float16",
                    weight_only="fp8",
                    host="::1",
                    args={"gpu-memory-util": 0.8, "block-size": 128, "max-model-len": 2000},
                ),
                cards=(B60, B60),
            ),
            "/opt/bin/vllm serve /models/m --host ::1 --port 8002 --served-model-name served "
            "--dtype float16 --quantization fp8 --gpu-memory-utilization 0.8 --block-size 128 "
            "--enforce-eager --max-model-len 2000 --tensor-parallel-size 2 "
            "--distributed-executor-backend mp",
        ),
        (
            order(
                wish("vllm-xpu", args={"tensor-parallel-size": 1, "pipeline-parallel-size": 2}),
                cards=(B60, B60),
            ),
            "/opt/bin/vllm serve /models/m --host 127.0.0.1 --port 8002 "
            "--served-model-name served --dtype auto --gpu-memory-utilization 0.9 "
            "--block-size 64 --enforce-eager --tensor-parallel-size 1 "
            "--distributed-executor-backend mp --pipeline-parallel-size 2",
        ),
        (
            order(wish("ipex-llm", weight_only="sym_int4", args={"max-num-seqs": 4})),
            "/opt/bin/python -m ipex_llm.vllm.cpu.entrypoints.openai.api_server "
            "--served-model-name served --port 8002 --model /models/m --device cpu "
            "--dtype bfloat16 --enforce-eager --load-in-low-bit sym_int4 --max-num-seqs 4 "
            "--tensor-parallel-size 1 --host 127.0.0.1",
        ),
        (
            order(
                wish("ipex-llm", args={"gpu-memory-utilization": 0.95, "block-size": 8}),
                cards=(A770,),
            ),
            "/opt/bin/python -m ipex_llm.vllm.xpu.entrypoints.openai.api_server "
            "--served-model-name served --port 8002 --model /models/m "
            "--gpu-memory-utilization 0.95 --device xpu --dtype float16 --enforce-eager "
            "--load-in-low-bit fp16 --tensor-parallel-size 1 --host 127.0.0.1 --block-size 8",
        ),
    ],
)
def test_command_lines(one: Order, words: str) -> None:
    made = command(one)
    assert line(made) == words
    assert len(made.argv_sources) == len(made.argv)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (
            order(wish("vllm-cpu")),
            {
                "VLLM_CPU_OMP_THREADS_BIND": "8-11",
                "VLLM_CPU_KVCACHE_SPACE": "4",
                "VLLM_NO_USAGE_STATS": "1",
                "HF_HUB_OFFLINE": "1",
            },
        ),
        (
            order(wish("vllm-cpu"), model="owner/name"),
            {
                "VLLM_CPU_OMP_THREADS_BIND": "8-11",
                "VLLM_CPU_KVCACHE_SPACE": "4",
                "VLLM_NO_USAGE_STATS": "1",
            },
        ),
        (
            order(wish("vllm-xpu"), cards=(B60, B60)),
            {
                "ZE_AFFINITY_MASK": "0,1",
                "ZE_ENABLE_PCI_ID_DEVICE_ORDER": "0",
                "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
                "VLLM_NO_USAGE_STATS": "1",
                "HF_HUB_OFFLINE": "1",
            },
        ),
        (
            replace(order(wish("vllm-xpu"), cards=(B60,)), gpu_mask="3"),
            {
                "ZE_AFFINITY_MASK": "3",
                "ZE_ENABLE_PCI_ID_DEVICE_ORDER": "0",
                "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
                "VLLM_NO_USAGE_STATS": "1",
                "HF_HUB_OFFLINE": "1",
            },
        ),
        (
            replace(order(wish("ipex-llm")), path="/usr/bin"),
            {
                "VLLM_CPU_OMP_THREADS_BIND": "8-11",
                "OMP_NUM_THREADS": "4",
                "VLLM_CPU_KVCACHE_SPACE": "4",
                "PATH": "/opt/bin:/usr/bin",
                "VLLM_NO_USAGE_STATS": "1",
                "HF_HUB_OFFLINE": "1",
            },
        ),
        (
            order(wish("ipex-llm", weight_only="fp8"), cards=(A770,), python="python"),
            {
                "ZE_AFFINITY_MASK": "0",
                "ZE_ENABLE_PCI_ID_DEVICE_ORDER": "0",
                "IPEX_LLM_LOWBIT": "fp8",
                "VLLM_NO_USAGE_STATS": "1",
                "HF_HUB_OFFLINE": "1",
                "USE_XETLA": "OFF",
                "SYCL_CACHE_PERSISTENT": "1",
                "SYCL_PI_LEVEL_ZERO_USE_IMMEDIATE_COMMANDLISTS": "2",
                "VLLM_USE_V1": "0",
            },
        ),
    ],
)
def test_environments(one: Order, expected: dict[str, str]) -> None:
    made = command(one)
    assert made.plain_env() == expected
    assert all(": " in setting.source for setting in made.env.values())


@pytest.mark.parametrize(
    ("nodes", "ranks", "lists"),
    [
        (("0-3", "8-11"), 2, "0-3|8-11"),
        (("0-3", "8-11"), 4, "0-1|2-3|8-9|10-11"),
        # Ranks wait for each other thread by thread: none may have more than another.
        (("0-3", "8-10"), 2, "0-2|8-10"),
        ((), 2, "0-3|8-11"),
    ],
)
def test_a_list_of_pus_for_each_rank(nodes: tuple[str, ...], ranks: int, lists: str) -> None:
    asked = wish("vllm-cpu", args={"tensor-parallel-size": ranks})
    one = order(asked, nodes=nodes, pus="0-3,8-11")
    assert command(one).env["VLLM_CPU_OMP_THREADS_BIND"].value == lists


@pytest.mark.parametrize(("nodes", "ranks"), [(("0-3", "8-11"), 3), (("0-3", "8"), 4)])
def test_ranks_that_do_not_divide_over_the_nodes_are_refused(
    nodes: tuple[str, ...], ranks: int
) -> None:
    asked = wish("vllm-cpu", args={"tensor-parallel-size": ranks})
    with pytest.raises(LayoutError, match="cannot be split"):
        command(order(asked, nodes=nodes, pus="0-3,8-11"))


@pytest.mark.parametrize(
    ("args", "kv_gib", "space"),
    [
        ({}, None, "4"),
        ({}, 3.5, "4"),
        ({}, 9.5, "10"),
        ({"max-model-len": 8}, 1, "4"),
        ({"max-model-len": 8, "max_num_seqs": 2}, 1.5, "2"),
        ({"max-model-len": 8, "max-num-seqs": 2, "tp": 2}, 12, "6"),
        ({"gpu-memory-utilization": 0.5}, 9.5, None),
        ({"kv-cache-memory-bytes": 1 << 30}, 9.5, None),
    ],
)
def test_the_kv_cache_is_always_bounded(
    args: dict[str, Scalar], kv_gib: float | None, space: str | None
) -> None:
    one = order(wish("vllm-cpu", args=args), nodes=("8-9", "10-11"))
    one = replace(one, kv_bytes=None if kv_gib is None else int(kv_gib * (1 << 30)))
    setting = command(one).env.get("VLLM_CPU_KVCACHE_SPACE")
    assert (setting.value if setting else None) == space


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (wish("vllm-xpu", args={"port": 1}), "args.port"),
        (wish("vllm-xpu", args={"trust_remote_code": True}), "args.trust_remote_code"),
        (wish("vllm-cpu", args={"no-trust-remote-code": True}), "no-trust-remote-code"),
        (wish("vllm-cpu", args={"device": "cpu"}), "does not know it"),
        (wish("vllm-cpu", args={"dp": 2}), "replicas of one process"),
        (wish("vllm-cpu", env={"VLLM_CPU_OMP_THREADS_BIND": "all"}), "env.VLLM_CPU_OMP"),
        (wish("vllm-xpu", env={"ZE_AFFINITY_MASK": "0"}), "env.ZE_AFFINITY_MASK"),
        (wish("ipex-llm", dtype="float32"), "auto, float16, bfloat16"),
        (wish("ipex-llm", args={"device": "xpu"}), "the slot decides it"),
        (wish("torch", args={"model": "x"}), "key of its own"),
    ],
)
def test_what_would_undo_the_placement_is_refused(asked: Instance, words: str) -> None:
    with pytest.raises(LayoutError, match=words):
        command(order(asked))


@pytest.mark.parametrize("engine", ["vllm-cpu", "vllm-xpu", "ipex-llm"])
def test_a_model_is_needed(engine: str) -> None:
    with pytest.raises(LayoutError, match="names no model"):
        command(order(wish(engine), model=""))


def test_every_word_tells_who_asked_for_it() -> None:
    made = command(order(wish("vllm-xpu", args={"max-model-len": 8}), cards=(B60, B60)))
    rows = {row.name: row for row in explain(made)}
    assert rows["--max-model-len"].source == "layout"
    assert rows["--port"].source == "placement"
    assert rows["--block-size"].source.startswith("driver: vllm-xpu: ")
    assert rows["ZE_AFFINITY_MASK"].value == "0,1"
    assert {row.source for row in explain(made)} >= {"layout", "placement"}
    assert not any("not told" in row.source for row in explain(made))
