"""Every file of a recorded machine damaged in turn: no crash, no wrong number, the loss is told.

The default run takes a sample, the same one each time; SLOTDECK_FUZZ=all takes every case.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import pytest

from engine.cli.picture import describe
from engine.core.codec import encode
from engine.core.cpuset import CpuSet
from engine.core.topology import Machine
from engine.host.archive import open_root
from engine.host.machine import read_machine
from engine.host.root import LARGEST_FILE, HostRoot
from tests.recorded import NAMES, unpacked

EVERY = os.environ.get("SLOTDECK_FUZZ") == "all"  # noqa: TID251 - the tests' own setting
SAMPLE = 500
"""Cases a machine in the default run."""
LONGEST_S = 5.0
"""Of one reading; they take milliseconds, and a shared machine may stall for seconds."""

RECORDS = sorted((Path(__file__).parents[1] / "machines").glob("*.tar.gz"))
# One each for masks only, HMAT and dax, a cpuset, offline PUs.
TREES = [
    name
    for name in NAMES
    if name.startswith(("64fake", "fakeheteromem", "16amd64-4n4c", "16em64t"))
]


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: max(len(content) // 2, len(content) - 2)])


def halved(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def garbage(path: Path) -> None:
    path.write_bytes(b"-7,3-1;0x\n\0\x1b[2J 1e9 NaN\n")


def huge(path: Path) -> None:
    path.write_bytes(b"9" * (LARGEST_FILE + 4096))


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x80\x81\n")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


DAMAGES: tuple[Callable[[Path], None], ...] = (
    *(missing, empty, truncated, halved, garbage),
    *(huge, no_text, folder, pipe, loop),
)


@contextmanager
def damaged(path: Path, damage: Callable[[Path], None], kept: Path) -> Iterator[None]:
    """The file as it was again afterwards."""
    shutil.copy2(path, kept, follow_symlinks=False)
    link = path.is_symlink()
    try:
        damage(path)
        yield
    finally:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        if link:
            path.symlink_to(kept.readlink())
        else:
            shutil.copy2(kept, path)
        kept.unlink()


def losses(whole: Machine, read: Machine) -> set[str]:
    """The rows of `missing` that a damage added."""
    before = {(one.what, one.why) for one in whole.missing}
    return {one.what for one in read.missing if (one.what, one.why) not in before}


def check(whole: Machine, read: Machine) -> None:
    """What is told is true, and what is not told any more is in `missing`."""
    told = losses(whole, read)
    for field in fields(Machine):
        if field.name not in ("missing", "memory_bytes"):
            same = getattr(whole, field.name) == getattr(read, field.name)
            assert same or told, f"{field.name} differs, and nothing in missing tells why"
    assert read.pus.online <= whole.pus.online | whole.pus.offline
    assert read.pus.usable <= read.pus.online
    cores = {pu: core for core in whole.cores for pu in core.pus}
    for core in read.cores:
        online = core.pus & whole.pus.online
        assert not online or core.pus <= cores[min(online)].pus, f"{core.pus} merges cores"
        assert not online or core.package in (None, cores[min(online)].package)
        assert not online or core.core_id in (None, cores[min(online)].core_id)
    nodes = {node.os_index: node for node in whole.numa_nodes}
    for node in read.numa_nodes:
        if node.os_index not in nodes:
            # It shared its PUs with another one, of which they are not told any more.
            assert told
            continue
        assert node.memory_bytes in (None, nodes[node.os_index].memory_bytes)
        assert node.cpus <= nodes[node.os_index].cpus
        assert node.kind in ("unknown", nodes[node.os_index].kind) or told
        assert node.initiators <= nodes[node.os_index].initiators or told
    if {node.os_index for node in read.numa_nodes} == set(nodes):
        assert read.distances in (None, whole.distances)
    if read.memory_bytes is not None:
        assert read.memory_bytes == whole.total_memory_bytes or told
    cards = {gpu.pci: gpu for gpu in whole.gpus}
    for gpu in read.gpus:
        for name in ("vendor", "device", "name", "driver", "memory_bytes", "bar_bytes"):
            assert getattr(gpu, name) in (None, getattr(cards[gpu.pci], name))
        if gpu.numa_node != cards[gpu.pci].numa_node:
            assert any(what.startswith(f"gpus[{gpu.index}].numa_node") for what in told)


def run(root: HostRoot, kept: Path, *, seed: int) -> int:
    """The number of cases that held."""
    whole = read_machine(root)
    files = sorted(path for path in root.path.rglob("*") if not path.is_dir())
    cases = [(path, damage) for path in files for damage in DAMAGES]
    if not EVERY:
        # A step that shares no factor with the number of damages meets each of them evenly.
        step = max(1, len(cases) // SAMPLE) | 1
        while step % 5 == 0:
            step += 2
        cases = cases[seed % step :: step]
    for path, damage in cases:
        if path.is_symlink() and damage not in (missing, folder, pipe):
            continue  # writing would change what the link points to; another target is a lie
        name = f"{path.relative_to(root.path)} {damage.__name__}"
        with damaged(path, damage, kept):
            start = time.process_time()
            try:
                read = read_machine(root)
                check(whole, read)
                assert describe(read, 80)
                assert encode(read)
            except Exception as error:
                raise AssertionError(f"{name}: {error}") from error
            assert time.process_time() - start < LONGEST_S, name
    assert read_machine(root) == whole
    return len(cases)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name)
def test_a_damaged_record_never_lies(path: Path, tmp_path: Path) -> None:
    with open_root(path) as root:
        count = run(root, tmp_path / "kept", seed=RECORDS.index(path))
    assert count >= 150


@pytest.mark.parametrize("name", TREES or ["none"])
def test_a_damaged_machine_of_hwlocs_never_lies(name: str, tmp_path: Path) -> None:
    root = unpacked(name, tmp_path)
    count = run(root, tmp_path / "kept", seed=len(name))
    assert count >= 150


def test_a_whole_folder_gone(tmp_path: Path) -> None:
    with open_root(RECORDS[0]) as root:
        whole = read_machine(root)
        for name in ("proc", "sys/devices/system/node", "sys/devices/system/cpu", "sys/bus/pci"):
            (root.path / name).rename(tmp_path / "away")
            read = read_machine(root)
            assert losses(whole, read) or read == whole, name
            assert read.pus.online <= whole.pus.online | CpuSet()
            assert describe(read, 80)
            (tmp_path / "away").rename(root.path / name)
