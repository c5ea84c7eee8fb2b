"""What a new program can have of each NUMA node's memory now."""

from pathlib import Path

from engine.host.node_memory import NodeMemory, read_node_memory
from engine.host.root import HostRoot
from tests.kernel_files import tree

Files = dict[str, str | bytes]
MIB = 1 << 20
NODE = "sys/devices/system/node/node"


def meminfo(index: int | None, **mib: int) -> Files:
    """Names of fields with `_file` for `(file)`, sizes in MiB."""
    start = "" if index is None else f"Node {index} "
    name = "proc/meminfo" if index is None else f"{NODE}{index}/meminfo"
    lines = [
        f"{start}{field.replace('_file', '(file)')}:{size * 1024:16} kB\n"
        for field, size in mib.items()
    ]
    return {name: "".join([*lines, f"{start}HugePages_Total:     0\n"])}


def huge(folder: str, **pages: tuple[int, int]) -> Files:
    files: Files = {}
    for size, (whole, free) in pages.items():
        place = f"{folder}/hugepages-{size.removeprefix('of_')}"
        files |= {f"{place}/nr_hugepages": f"{whole}\n", f"{place}/free_hugepages": f"{free}\n"}
    return files


def test_what_is_cached_counts_unless_somebody_uses_it(tmp_path: Path) -> None:
    cached = {"Active_file": 3000, "Inactive_file": 5000, "KReclaimable": 200}
    files: Files = {
        **meminfo(0, MemTotal=64000, MemFree=1000, **cached, SReclaimable=150),
        # An engine has its weights mapped, and another one's are still to be written.
        **meminfo(
            1, MemTotal=64000, MemFree=1000, **cached, Dirty=300, Writeback=200, Mapped=6000
        ),
        # Mapped is also what is shared; that is in no file's cache.
        **meminfo(2, MemTotal=64000, MemFree=1000, **cached, Mapped=6000, Shmem=7000),
        **meminfo(3, MemTotal=64000, MemFree=1000, **cached, Mapped=9000),
        # Linux before 4.20.
        **meminfo(4, MemTotal=64000, MemFree=1000, SReclaimable=150),
        **meminfo(5, MemTotal=0, MemFree=0),
    }
    found = read_node_memory(tree(tmp_path, files))
    told = {node: memory.reclaimable_bytes // MIB for node, memory in found.items()}
    assert told == {0: 8200, 1: 1700, 2: 8200, 3: 200, 4: 150, 5: 0}
    assert found[0] == NodeMemory(64000 * MIB, 1000 * MIB, 8200 * MIB, 0, 0)
    assert found[0].available_bytes == 9200 * MIB


def test_huge_pages_are_set_aside(tmp_path: Path) -> None:
    files: Files = {
        **meminfo(0, MemTotal=64000, MemFree=100),
        **huge(f"{NODE}0/hugepages", of_2048kB=(1000, 400), of_1048576kB=(4, 1)),
        **meminfo(1, MemTotal=64000, MemFree=200),
        f"{NODE}1/hugepages/hugepages-2048kB/nr_hugepages": "garbage\n",
    }
    found = read_node_memory(tree(tmp_path, files))
    assert (found[0].huge_bytes, found[0].huge_free_bytes) == (6096 * MIB, 1824 * MIB)
    assert (found[1].huge_bytes, found[1].free_bytes) == (0, 200 * MIB)


def test_one_node_is_told_by_the_whole(tmp_path: Path) -> None:
    files: Files = {
        **meminfo(0, MemTotal=11000, MemFree=9000),
        **meminfo(None, MemTotal=24000, MemFree=22000, MemAvailable=22800, Active_file=5000),
        **huge("sys/kernel/mm/hugepages", of_2048kB=(10, 10)),
    }
    expected = NodeMemory(24000 * MIB, 22000 * MIB, 800 * MIB, 20 * MIB, 20 * MIB)
    assert read_node_memory(tree(tmp_path / "one", files)) == {0: expected}
    del files[f"{NODE}0/meminfo"]
    assert read_node_memory(tree(tmp_path / "none", files)) == {None: expected}
    # The kernel keeps more for itself than is free.
    scarce = meminfo(None, MemTotal=24000, MemFree=50, MemAvailable=10, Active_file=5)
    (memory,) = read_node_memory(tree(tmp_path / "scarce", scarce)).values()
    assert memory.available_bytes == 50 * MIB
    alone = meminfo(3, MemTotal=11000, MemFree=9000)
    assert set(read_node_memory(tree(tmp_path / "alone", alone))) == {3}


def test_what_tells_nothing_is_left_out(tmp_path: Path) -> None:
    files: Files = {
        f"{NODE}0/meminfo": "garbage\n",
        f"{NODE}1/meminfo": "Node 1 MemTotal: 1 kB\n",
        **meminfo(2, MemTotal=64000, MemFree=200),
    }
    assert set(read_node_memory(tree(tmp_path, files))) == {2}
    assert read_node_memory(tree(tmp_path / "empty", {"proc/meminfo": "MemTotal: x\n"})) == {}


def test_this_machine() -> None:
    found = read_node_memory(HostRoot())
    assert found
    for memory in found.values():
        assert 0 <= memory.free_bytes <= memory.available_bytes <= memory.total_bytes
