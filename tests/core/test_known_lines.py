"""Lines that others have published, out of a layout: same PUs, same memory nodes, same words.

numactl takes its options in any order: published lines have `-m 0 -C 0-55` as well as
`-C 0-63 -m 0`, slotdeck always writes the cores first.
"""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from engine.core.command import shell_line
from engine.core.cpuset import CpuSet
from engine.core.layout import Instance, Layout, parse_layout
from engine.core.placement import place
from engine.core.synthetic import parse_synthetic
from engine.core.topology import Machine
from engine.drivers.registry import DRIVERS
from engine.service.orders import Planned, Surroundings
from engine.service.planning import plan_layout
from tests.machines_by_hand import build, server, uneven, with_offline_pus

ENGINES = {name: driver.weight_only for name, driver in DRIVERS.items()}
FOUR_SOCKETS = "pack:4 core:64 pu:2 mem:256GiB"
TWO_SOCKETS = "pack:2 core:56 pu:2 mem:256GiB"
XEON_6972P = "pack:2 numa:3 core:32 pu:2 mem:128GiB"
XEON_6980P = replace(build([43, 43, 42] * 2, nodes_per_package=3, smt=2), live=False)
"""Two sockets whose three clusters have 43, 43 and 42 cores."""


def machine(spec: str | Machine) -> Machine:
    return parse_synthetic(spec) if isinstance(spec, str) else spec


def planned(spec: str | Machine, instance: str) -> list[Planned]:
    """What `[[instance]]` with these lines comes to."""
    text = f"schema = 1\n[[instance]]\nname = 'a'\n{instance}"
    layout = parse_layout(text, name="x.toml", engines=ENGINES)
    around = Surroundings({}, Path("/nowhere"))
    plan = plan_layout(machine(spec), layout, around, base="/nowhere")
    assert plan.refusals == ()
    return list(plan.planned)


def lines(spec: str | Machine, instance: str) -> list[str]:
    return [
        shell_line(one.command, one.placement.pus, one.placement.memory)
        for one in planned(spec, instance)
    ]


RUN = "python run.py --benchmark -m /path/to/model --dtype bfloat16 --ipex --token-latency"


def test_the_ipex_guides_four_sockets() -> None:
    """One benchmark on each socket, side by side, as the multi-instance guide writes them."""
    command = f"engine = 'command'\nmodel = '/path/to/model'\ncommand = {RUN.split()}\n"
    assert lines(FOUR_SOCKETS, f"{command}slot = 'each package'") == [
        f"numactl -C 0-63 -m 0 {RUN}",
        f"numactl -C 64-127 -m 1 {RUN}",
        f"numactl -C 128-191 -m 2 {RUN}",
        f"numactl -C 192-255 -m 3 {RUN}",
    ]
    # One instance on one node, the guide's first line.
    assert lines(FOUR_SOCKETS, f"{command}slot = 'numa:0'") == [f"numactl -C 0-63 -m 0 {RUN}"]


@pytest.mark.parametrize("wish", ["slot = 'each package'", "count = 4", "count = 4\ncores = 64"])
def test_ipexrun_with_four_instances(wish: str) -> None:
    """`ipexrun --ninstances 4 [--ncores-per-instance 64]` in three lines: the same pools, and its
    variable. Its KMP_AFFINITY and KMP_BLOCKTIME come with libiomp5, which it preloads and
    slotdeck does not; OMP_PROC_BIND says the same to any OpenMP."""
    got = planned(FOUR_SOCKETS, f"engine = 'ipex'\nmodel = '/path/to/model'\n{wish}")
    pools = [(str(one.placement.pus), one.placement.memory.nodes) for one in got]
    assert pools == [("0-63", "0"), ("64-127", "1"), ("128-191", "2"), ("192-255", "3")]
    for one in got:
        assert one.command.env["OMP_NUM_THREADS"].value == "64"
        assert one.command.env["OMP_PROC_BIND"].value == "close"


def test_the_ipex_benchmarks_line() -> None:
    """`OMP_NUM_THREADS=56 numactl -m 0 -C 0-55 python run.py …` of IPEX's LLM examples."""
    command = "engine = 'command'\ncommand = ['python', 'run.py', '--ipex']\nslot = 'numa:0'\n"
    assert lines(TWO_SOCKETS, f"{command}env.OMP_NUM_THREADS = '56'") == [
        "OMP_NUM_THREADS=56 numactl -C 0-55 -m 0 python run.py --ipex"
    ]
    (one,) = planned(TWO_SOCKETS, "engine = 'ipex'\nmodel = '/m'\nslot = 'numa:0'")
    assert one.command.env["OMP_NUM_THREADS"].value == "56"


CLUSTER_LISTS = [
    # IPEX's DeepSpeed example for three clusters a socket: --bind_core_list, 42 of each.
    (42, "0-41,43-84,86-127,128-169,171-212,214-255"),
    # SGLang's SGLANG_CPU_OMP_THREADS_BIND, the first 40 cores of each.
    (40, "0-39,43-82,86-125,128-167,171-210,214-253"),
]


@pytest.mark.parametrize(("cores", "lists"), CLUSTER_LISTS)
def test_equal_shares_of_uneven_clusters(cores: int, lists: str) -> None:
    got = planned(XEON_6980P, f"engine = 'ipex'\nmodel = '/m'\ncount = 6\ncores = {cores}")
    assert ",".join(str(one.placement.pus) for one in got) == lists
    assert [one.placement.memory.nodes for one in got] == list("012345")


def test_ranks_of_one_engine_over_uneven_clusters() -> None:
    """The same list for the ranks of one vLLM: each has as many cores as the smallest cluster.

    All six cannot be: vLLM's sums over ranks on CPUs are compiled for 2, 3, 4 or 8 of them.
    """
    ranks = "engine = 'vllm-cpu'\nmodel = '/m'\nreserve_cores = 0\nargs.tensor-parallel-size = 3\n"
    lists = CLUSTER_LISTS[0][1].split(",")
    for socket, memory in ((0, "0-2"), (1, "3-5")):
        (one,) = planned(XEON_6980P, f"{ranks}slot = 'package:{socket}'")
        wanted = "|".join(lists[3 * socket : 3 * socket + 3])
        assert one.command.env["VLLM_CPU_OMP_THREADS_BIND"].value == wanted
        assert one.placement.memory.nodes == memory


SERVER = "engine = 'command'\ncommand = ['server']\n"


@pytest.mark.parametrize(
    ("spec", "wish", "line"),
    [
        # sgl-project/sglang PR 19666: a socket of three clusters needs the memory of all three.
        (XEON_6972P, "slot = 'package:0'", "numactl -C 0-95 -m 0-2 server"),
        # mozilla-ai/llamafile 765: --cpunodebind=1 --membind=1 takes the SMT siblings too.
        ("pack:2 core:16 pu:2 mem:64GiB", "slot = 'numa:1'\nsmt = true", "-C 16-31,48-63 -m 1"),
        # ipexrun --ninstances 2 on four nodes lets each cross one; only on demand here.
        (FOUR_SOCKETS, "slot = 'numa:2-3'", "numactl -C 128-255 -m 2-3 server"),
        # ipex-llm's guides write `numactl -C 0-11` and leave memory to the kernel; -l says the
        # same, aloud.
        ("pack:1 core:24 mem:64GiB", "slot = 'core:0-11'\nmemory = 'local'", "-C 0-11 -l server"),
        # One instance over two sockets, its pages from both in turn.
        (
            "pack:2 core:32 mem:64GiB",
            "slot = 'core:0-63'\nmemory = 'interleave'",
            "-C 0-63 -i 0-1",
        ),
    ],
)
def test_single_lines(spec: str, wish: str, line: str) -> None:
    (got,) = lines(spec, SERVER + wish)
    assert line in got


def test_the_model_servers_six_containers() -> None:
    """OpenVINO Model Server's scaling demo gives each container a node's `lscpu` list."""
    got = planned(XEON_6972P, f"{SERVER}slot = 'each numa'\nsmt = true")
    assert [str(one.placement.pus) for one in got] == [
        *("0-31,192-223", "32-63,224-255", "64-95,256-287"),
        *("96-127,288-319", "128-159,320-351", "160-191,352-383"),
    ]


def test_the_guides_line_for_two_a770() -> None:
    """BigDL's dual-A770 line, word for word, out of a slot."""
    two = replace(build([24], smt=2, gpus_on=[0, 0]), live=False)
    (one,) = planned(
        two,
        "engine = 'ipex-llm'\npython = 'python'\nmodel = '/MODEL'\nslot = 'gpu:0,1'\n"
        "port = 8000\ndtype = 'float16'\nweight_only = 'fp8'\ntrust_remote_code = true\n"
        "host = '0.0.0.0'\nargs = { max-model-len = 2048, max-num-batched-tokens = 4000, "
        "max-num-seqs = 12 }",
    )
    assert shlex.join(one.command.argv) == (
        "python -m ipex_llm.vllm.xpu.entrypoints.openai.api_server --served-model-name MODEL "
        "--port 8000 --model /MODEL --trust-remote-code --gpu-memory-utilization 0.9 "
        "--device xpu --dtype float16 --enforce-eager --load-in-low-bit fp8 --max-model-len 2048 "
        "--max-num-batched-tokens 4000 --max-num-seqs 12 --tensor-parallel-size 2"
    )


# IPEX 2.8's launcher. Its pools were asked of the launcher itself, with an `lscpu` table of each
# machine; `nodes` is what it hands to `numactl -m`.

MACHINES: dict[str, Machine] = {
    "4 sockets of 64": parse_synthetic(FOUR_SOCKETS),
    "2 sockets of 56": parse_synthetic(TWO_SOCKETS),
    "2 sockets, 2 clusters of 8": server(),
    "clusters of 43, 42, 42": uneven(),
    "2 sockets, clusters of 43, 42, 43": build([43, 42, 43] * 2, nodes_per_package=3, smt=2),
    "nodes of 8 and 4": build([8, 4]),
    "one node of 10": build([10], smt=2),
    "2 nodes of 8": build([8, 8], smt=2),
    "PU 1, 4 and 6 offline": with_offline_pus(),
}

THROUGHPUT = {"slot": "each numa"}
"""--throughput-mode: one instance per node."""
GREEDY = "--bind-numa-node --ncores-per-instance -1"

AGREED: list[tuple[str, str, Mapping[str, object], list[str]]] = [
    ("4 sockets of 64", "--ninstances 4", {"count": 4}, ["0-63", "64-127", "128-191", "192-255"]),
    ("4 sockets of 64", "--throughput-mode", THROUGHPUT, ["0-63", "64-127", "128-191", "192-255"]),
    (
        *("4 sockets of 64", f"--ninstances 3 {GREEDY}", {"count": 3}),
        ["0-63", "64-127", "128-191"],
    ),
    (
        *("4 sockets of 64", "--ninstances 2 --ncores-per-instance 4 --bind-numa-node"),
        {"count": 2, "cores": 4, "strategy": "pack"},
        ["0-3", "4-7"],
    ),
    (
        "4 sockets of 64",
        "--ninstances 2 --ncores-per-instance 4 --bind-numa-node --strategy scatter",
        {"count": 2, "cores": 4},
        ["0-3", "64-67"],
    ),
    (
        *("4 sockets of 64", "--nodes-list 0 --use-logical-cores"),
        {"slot": "numa:0", "smt": True},
        ["0-63,256-319"],
    ),
    ("2 sockets of 56", "--ninstances 4", {"count": 4}, ["0-27", "28-55", "56-83", "84-111"]),
    ("2 sockets of 56", "--ninstances 2", {"count": 2}, ["0-55", "56-111"]),
    ("2 sockets of 56", "--throughput-mode", THROUGHPUT, ["0-55", "56-111"]),
    (
        *("2 sockets, 2 clusters of 8", "--ninstances 4", {"count": 4}),
        ["0-7", "8-15", "16-23", "24-31"],
    ),
    (
        *("2 sockets, 2 clusters of 8", "--latency-mode", {"count": 8, "cores": 4}),
        ["0-3", "4-7", "8-11", "12-15", "16-19", "20-23", "24-27", "28-31"],
    ),
    ("clusters of 43, 42, 42", "--throughput-mode", THROUGHPUT, ["0-42", "43-84", "85-126"]),
    (
        *("clusters of 43, 42, 42", f"--ninstances 4 {GREEDY}", {"count": 4}),
        ["0-21", "22-42", "43-84", "85-126"],
    ),
    (
        *("2 sockets, clusters of 43, 42, 43", "--throughput-mode", THROUGHPUT),
        ["0-42", "43-84", "85-127", "128-170", "171-212", "213-255"],
    ),
    (
        *("2 sockets, clusters of 43, 42, 43", "--ninstances 4 --bind-numa-node", {"count": 4}),
        ["0-42", "85-127", "128-170", "213-255"],
    ),
    (
        *("nodes of 8 and 4", f"--ninstances 4 {GREEDY}", {"count": 4}),
        ["0-2", "3-5", "6-7", "8-11"],
    ),
    ("nodes of 8 and 4", f"--ninstances 3 {GREEDY}", {"count": 3}, ["0-3", "4-7", "8-11"]),
    ("one node of 10", f"--ninstances 4 {GREEDY}", {"count": 4}, ["0-2", "3-5", "6-7", "8-9"]),
    ("2 nodes of 8", "--ninstances 4", {"count": 4}, ["0-3", "4-7", "8-11", "12-15"]),
    ("PU 1, 4 and 6 offline", "--throughput-mode", THROUGHPUT, ["0,5", "2-3"]),
    ("PU 1, 4 and 6 offline", "--ninstances 4", {"count": 4}, ["0", "5", "2", "3"]),
]


def pools(name: str, wish: Mapping[str, object]) -> list[tuple[str, str]]:
    instance = Instance(name="a", **wish)  # type: ignore[arg-type]
    plan = place(MACHINES[name], Layout(name="x", instances=(instance,)))
    assert plan.refusals == ()
    return [(str(at.pus), at.memory.nodes) for at in plan.placements]


@pytest.mark.parametrize(("name", "options", "wish", "theirs"), AGREED)
def test_ipexruns_pools(
    name: str, options: str, wish: Mapping[str, object], theirs: list[str]
) -> None:
    got = pools(name, wish)
    assert [pus for pus, _ in got] == theirs, options
    # Each stays inside one node there too, and is bound to it.
    for pus, nodes in got:
        (home,) = (node for node in MACHINES[name].numa_nodes if CpuSet.parse(pus) <= node.cpus)
        assert nodes == str(home.os_index)


DIFFERENT = [
    # Without --bind-numa-node its pools cross nodes; ours do so where a slot says it.
    ("clusters of 43, 42, 42", "--ninstances 2", 2, ["0-62", "63-125"], ["0-42", "43-84"]),
    ("nodes of 8 and 4", "--ninstances 2", 2, ["0-5", "6-11"], ["0-7", "8-11"]),
    # It leaves what does not divide unused (1 core here), unless asked to be greedy.
    (
        *("clusters of 43, 42, 42", "--ninstances 4 --bind-numa-node", 4),
        ["0-20", "21-41", "43-84", "85-126"],
        ["0-21", "22-42", "43-84", "85-126"],
    ),
    (
        *("one node of 10", "--ninstances 4", 4),
        ["0-1", "2-3", "4-5", "6-7"],
        ["0-2", "3-5", "6-7", "8-9"],
    ),
    # Two ways that are as good: which node has two instances.
    (
        *("2 nodes of 8", f"--ninstances 3 {GREEDY}", 3),
        ["0-7", "8-11", "12-15"],
        ["0-3", "4-7", "8-15"],
    ),
]


@pytest.mark.parametrize(("name", "options", "count", "theirs", "ours"), DIFFERENT)
def test_where_ipexrun_places_otherwise(
    name: str, options: str, count: int, theirs: list[str], ours: list[str]
) -> None:
    assert [pus for pus, _ in pools(name, {"count": count})] == ours
    assert ours != theirs, options
    # Never at the price of the smallest share that a node can hold.
    within = [
        len(CpuSet.parse(pus))
        for pus in theirs
        if any(CpuSet.parse(pus) <= node.cpus for node in MACHINES[name].numa_nodes)
    ]
    if len(within) == count:
        assert min(len(CpuSet.parse(pus)) for pus in ours) >= min(within)
