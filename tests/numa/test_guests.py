"""The map against `lscpu` and `numactl` on real kernels: this host's, and guests' of many shapes.

Each guest takes about half a minute: `make test-numa`.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from engine.core.cpuset import CpuSet
from tests.numa.booted import PYTHON, ROOT, booted
from tests.numa.guest import Shape

SHAPES = {
    "four packages": (Shape(sockets=4, node_mib=200), ""),
    "sub-NUMA, SMT, memory-only, cards": (
        Shape(
            threads=2,
            nodes=4,
            memory_only=2,
            node_mib=200,
            processor="max,vendor=GenuineIntel",
            cards=("virtio-gpu-pci",),
            modules=("virtio_gpu",),
        ),
        "",
    ),
    "dies, PUs offline": (
        Shape(dies=2, node_mib=200, boot="cpu0_hotplug"),
        "for cpu in 0 3 5; do echo 0 > /sys/devices/system/cpu/cpu$cpu/online; done; ",
    ),
    "a narrow cpuset": (
        Shape(node_mib=200),
        "mkdir /sys/fs/cgroup/a; echo +cpuset > /sys/fs/cgroup/cgroup.subtree_control; "
        "cd /sys/fs/cgroup/a; echo 1-2 > cpuset.cpus; echo 0 > cpuset.mems; "
        "echo $$ > cgroup.procs; cd -; ",
    ),
}


def compare(topo: dict[str, Any], lscpu: str, numactl: str, status: str) -> None:
    """Object by object with what the other programs tell of the same kernel."""
    rows = [tuple(line.split(",")) for line in lscpu.splitlines() if line[:1].isdigit()]
    assert topo["pus"]["online"] == str(CpuSet(int(row[0]) for row in rows))
    by_core: dict[tuple[str, str], set[int]] = {}
    for pu, core, package, _ in rows:
        by_core.setdefault((package, core), set()).add(int(pu))
    assert sorted(core["pus"] for core in topo["cores"]) == sorted(
        str(CpuSet(pus)) for pus in by_core.values()
    )
    assert len(topo["packages"]) == len({row[2] for row in rows})
    cpus = dict(re.findall(r"^node (\d+) cpus:([\d ]*)$", numactl, re.MULTILINE))
    sizes = dict(re.findall(r"^node (\d+) size: (\d+) MB$", numactl, re.MULTILINE))
    if cpus:
        assert {str(node["os_index"]): node["cpus"] for node in topo["numa_nodes"]} == {
            node: str(CpuSet(map(int, pus.split()))) for node, pus in cpus.items()
        }
        assert {
            str(node["os_index"]): str(node["memory_bytes"] >> 20) for node in topo["numa_nodes"]
        } == sizes
        table = re.findall(r"^ +\d+: +([\d ]+)$", numactl, re.MULTILINE)
        assert topo["distances"] == [list(map(int, row.split())) for row in table]
    allowed = dict(re.findall(r"^(Cpus|Mems)_allowed_list:\s*(\S*)$", status, re.MULTILINE))
    online = CpuSet.parse(topo["pus"]["online"])
    assert topo["pus"]["usable"] == str(CpuSet.parse(allowed["Cpus"]) & online)
    nodes = CpuSet(node["os_index"] for node in topo["numa_nodes"])
    assert topo["usable_nodes"] == str(CpuSet.parse(allowed["Mems"]) & nodes)


def commands(out: Path) -> str:
    return (
        f"cd {ROOT} && {PYTHON} -m engine.cli.main topo --json > {out}/topo.json; "
        f"lscpu -p=CPU,CORE,SOCKET,NODE > {out}/lscpu; "
        f"cat /proc/self/status > {out}/status; numactl -H > {out}/numactl"
    )


def compare_files(out: Path) -> dict[str, Any]:
    topo: dict[str, Any] = json.loads((out / "topo.json").read_text())
    texts = [(out / name).read_text() for name in ("lscpu", "numactl", "status")]
    compare(topo, *texts)
    return topo


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_a_guests_map_is_what_its_kernels_other_programs_tell(shape: str, tmp_path: Path) -> None:
    machine, before = SHAPES[shape]
    booted(machine, before + commands(tmp_path), work=tmp_path, within_s=300)
    topo = compare_files(tmp_path)
    if "cards" in shape:
        assert [gpu["numa_node"] for gpu in topo["gpus"]] == [0, 1, 2, 3]
        assert [node["initiators"] for node in topo["numa_nodes"][4:]] == ["0", "2"]


def test_this_hosts_map_too(tmp_path: Path) -> None:
    if shutil.which("lscpu") is None:
        pytest.skip("lscpu is not installed")
    subprocess.run(["sh", "-c", commands(tmp_path)], check=False, stderr=subprocess.DEVNULL)
    # Another size of memory a moment later is a balloon's doing, which guests here have not.
    (tmp_path / "numactl").write_text("")
    compare_files(tmp_path)
