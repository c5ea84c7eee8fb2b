"""What may still be taken, read from recorded trees."""

from pathlib import Path

import pytest

from engine.worker import memory
from engine.worker.errors import CannotServe

GIB = 1 << 30


def tree(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_machine_alone(tmp_path: Path) -> None:
    tree(tmp_path, proc__meminfo=f"MemTotal: 9 kB\nMemAvailable: {8 * GIB // 1024} kB\n")
    assert memory.available_bytes(tmp_path, frozenset()) == 8 * GIB


def test_a_group_that_leaves_less(tmp_path: Path) -> None:
    tree(
        tmp_path,
        proc__meminfo=f"MemAvailable: {8 * GIB // 1024} kB\n",
        proc__self__cgroup="0::/a/b\n",
    )
    for group, most, used in (("a", 3 * GIB, 2 * GIB), ("a/b", "max", GIB)):
        folder = tmp_path / "sys/fs/cgroup" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {GIB // 2}\n")
    assert memory.available_bytes(tmp_path, frozenset()) == GIB + GIB // 2


def test_the_nodes_of_a_bound_process(tmp_path: Path) -> None:
    tree(tmp_path, proc__meminfo=f"MemAvailable: {64 * GIB // 1024} kB\n")
    for node in (0, 1):
        folder = tmp_path / f"sys/devices/system/node/node{node}"
        folder.mkdir(parents=True)
        (folder / "meminfo").write_text(
            f"Node {node} MemFree:        {(node + 1) * GIB // 1024} kB\n"
            f"Node {node} Inactive(file): {GIB // 1024} kB\n"
            f"Node {node} SReclaimable:   0 kB\n"
        )
    assert memory.available_bytes(tmp_path, frozenset({1})) == 3 * GIB
    assert memory.available_bytes(tmp_path, frozenset({0, 1})) == 5 * GIB


def test_the_nodes_that_a_cpuset_leaves(tmp_path: Path) -> None:
    tree(
        tmp_path,
        proc__meminfo=f"MemAvailable: {64 * GIB // 1024} kB\n",
        proc__self__status="Name:\tx\nMems_allowed_list:\t1-3\n",
    )
    folder = tmp_path / "sys/devices/system/node"
    for node in range(4):
        (folder / f"node{node}").mkdir(parents=True)
        text = f"Node {node} MemFree: {GIB // 1024} kB\n"
        (folder / f"node{node}/meminfo").write_text(text)
    (folder / "has_memory").write_text("0-3\n")
    assert memory.available_bytes(tmp_path, frozenset()) == 3 * GIB
    (folder / "has_memory").write_text("1-3\n")
    assert memory.available_bytes(tmp_path, frozenset()) == 64 * GIB


def test_nothing_is_known_of_an_empty_tree(tmp_path: Path) -> None:
    assert memory.available_bytes(tmp_path, frozenset()) is None


def test_a_refusal_names_both_numbers() -> None:
    memory.require(5, None, what="Cannot", do="Stop")
    memory.require(5, 5, what="Cannot", do="Stop")
    with pytest.raises(CannotServe, match=r"Cannot: that takes 2.0 GiB, and 512 MiB may be used"):
        memory.require(2 * GIB, GIB // 2, what="Cannot", do="Stop")


def test_the_weights_of_real_files(model: Path) -> None:
    found = memory.weights_bytes(model, 2)
    assert found is not None
    assert 250e6 < found < 280e6
    assert memory.weights_bytes(model.parent / "none", 2) is None
