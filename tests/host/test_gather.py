"""Records of machines: they read back the same, say nothing private, and overwrite nothing."""

import argparse
import gzip
import os
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from engine.cli import gather as verb
from engine.core.errors import ControlError, UsageError
from engine.core.synthetic import parse_synthetic
from engine.core.topology import Machine
from engine.host.archive import open_root
from engine.host.device_root import DeviceRoot
from engine.host.gather import gather
from engine.host.gpus import read_gpus
from engine.host.machine import read_machine
from engine.host.recorder import Recorder
from engine.host.root import HostRoot
from tests.shared import shared
from tests.sysfs_tree import PREFETCH_64, SysfsTree, write_machine

TREES = sorted(shared("machines/trees").glob("*.tar.bz2"), key=lambda path: path.name)
CARD = "sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0"


def files(record: Path) -> dict[str, bytes]:
    with tarfile.open(record) as archive:
        return {
            entry.name.removeprefix("machine/"): read.read()
            for entry in archive
            if entry.isfile() and (read := archive.extractfile(entry)) is not None
        }


def same(one: Machine, other: Machine) -> bool:
    return replace(one, live=False) == replace(other, live=False)


@pytest.fixture
def server(tmp_path: Path) -> SysfsTree:
    """Two nodes and a card, among much that is nobody's business."""
    write_machine(parse_synthetic("pack:2 core:2 pu:2 mem:1GiB"), tmp_path / "server")
    tree = SysfsTree(tmp_path / "server")
    tree.file(
        "proc/self/status",
        "Name:\tpython3\nUid:\t1000\nCpus_allowed_list:\t0-5\nMems_allowed_list:\t0\nThreads:\t1",
    )
    for node in range(2):
        tree.file(
            f"sys/devices/system/node/node{node}/meminfo",
            f"Node {node} MemTotal: 1048576 kB\nNode {node} MemFree: {os.getpid()} kB",
        )
    tree.function(
        CARD.removeprefix("sys/devices/"),
        device=0xE20B,
        near="0-1,4-5",
        driver="xe",
        bars=[(1 << 38, 16 << 30, PREFETCH_64)],
        drm=("card0", "renderD128"),
    )
    tree.file(f"{CARD}/uevent", "DRIVER=xe\nPCI_CLASS=30000\nPCI_ID=8086:E20B\nSECRET=1")
    tree.file(f"{CARD}/serial_number", "SECRET")
    tree.file("proc/cmdline", "SECRET")
    tree.file("proc/self/environ", "SECRET")
    tree.file("proc/sys/kernel/hostname", "SECRET")
    tree.file("sys/class/dmi/id/product_serial", "SECRET")
    return tree


def test_it_reads_back_the_same_machine(server: SysfsTree, tmp_path: Path) -> None:
    done = gather(server.root, tmp_path / "a.tar.gz")
    assert done.differences == done.left_out == ()
    nodes = [(node.os_index, node.cpus) for node in done.machine.numa_nodes]
    with open_root(done.path) as root:
        assert same(read_machine(root), done.machine)
        assert read_gpus(root, nodes) == read_gpus(server.root, nodes)
    assert [gpu.numa_node for gpu in done.machine.gpus] == [0]
    assert str(done.machine.pus.usable) == "0-5"


def test_only_what_is_read_is_in_it(server: SysfsTree, tmp_path: Path) -> None:
    kept = files(gather(server.root, tmp_path / "a.tar.gz").path)
    assert kept["proc/self/status"] == b"Cpus_allowed_list:\t0-5\nMems_allowed_list:\t0\n"
    assert kept["sys/devices/system/node/node0/meminfo"] == b"Node 0 MemTotal: 1048576 kB\n"
    assert not [name for name, content in kept.items() if b"SECRET" in content]
    # No file stands there empty because nobody read it: an empty list is a list.
    assert kept["sys/devices/system/cpu/possible"] == b"0-7\n"
    assert all(kept.values())


def test_a_private_file_is_not_kept_even_when_a_reader_asks(server: SysfsTree) -> None:
    recorder = Recorder(server.path)
    asked = (
        *("proc/cmdline", "proc/self/environ", "proc/sys/kernel/hostname"),
        *("sys/class/dmi/id/product_serial", f"{CARD}/serial_number"),
        "sys/bus/pci/devices/0000:01:00.0/serial_number",
    )
    for name in asked:
        assert recorder.text(name) is None
        assert recorder.octets(name, 10) is None
    assert "serial_number" not in recorder.names(CARD)
    assert not [each for each in recorder.kept.values() if each.content]
    assert len(recorder.refused) == 5  # the last one is the one before it


def test_the_configuration_space_loses_its_serial_number(server: SysfsTree) -> None:
    config = bytearray(4096)
    config[:4] = bytes.fromhex("86800be2")
    struct.pack_into("<IQ", config, 0x100, 0x3 | 1 << 16 | 0x200 << 20, 0x5EC2E75EC2E7)
    struct.pack_into("<III", config, 0x200, 0x15 | 1 << 16, 0x7F << 12, 14 << 8 | 1 << 5 | 2)
    struct.pack_into("<II", config, 0x18, 0xC, 0x78)
    server.file(f"{CARD}/config", bytes(config))
    (server.path / CARD / "resource").unlink()
    recorder = Recorder(server.path)
    facts, missing = read_gpus(recorder, [])
    assert (facts[0].bar_bytes, facts[0].bar_address) == (16 << 30, 0x7800000000)
    assert (facts, missing) == read_gpus(server.root, [])
    kept = recorder.kept[f"{CARD}/config"].content
    assert kept is not None
    assert struct.pack("<Q", 0x5EC2E75EC2E7) not in kept


def test_the_same_machine_makes_the_same_bytes(server: SysfsTree, tmp_path: Path) -> None:
    one = gather(server.root, tmp_path / "a.tar.gz").path
    server.file("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal: 1048576 kB\nNode 0 x")
    os.utime(server.path / "sys", (1, 1))
    other = gather(server.root, tmp_path / "b.tar.gz").path
    assert one.read_bytes() == other.read_bytes()
    with tarfile.open(one) as archive:
        entries = archive.getmembers()
    assert [entry.name for entry in entries] == sorted(entry.name for entry in entries)
    assert {(entry.mtime, entry.uid, entry.gid, entry.uname) for entry in entries} == {
        (0, 0, 0, "")
    }


def test_a_record_of_a_record_is_the_record(server: SysfsTree, tmp_path: Path) -> None:
    one = gather(server.root, tmp_path / "a.tar.gz").path
    with open_root(one) as root:
        other = gather(root, tmp_path / "b.tar.gz").path
    assert one.read_bytes() == other.read_bytes()


def test_no_way_of_reading_passes_the_recorder_by(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    tree.file("sys/real/file", "x")
    tree.link("sys/door", "sys/real")
    ways = {name for name in dir(DeviceRoot) if not name.startswith("_")}
    # `may_open` asks about this machine's device files, which are in no record.
    for way in ways - {"path", "live", "of", "may_open"}:
        recorder = Recorder(tmp_path)
        name = {"names": "sys/real", "link": "sys/door"}.get(way, "sys/real/file")
        more = (100,) if way == "octets" else ()
        read = getattr(recorder, way)(name, *more)
        assert read, way
        assert read == getattr(DeviceRoot(tmp_path), way)(name, *more)
        assert name in recorder.kept, way


def test_a_pipe_in_a_recorded_tree_holds_nobody_up(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    tree.file("sys/devices/system/cpu/online", "0")
    os.mkfifo(tmp_path / "sys/devices/system/cpu/possible")
    recorder = Recorder(tmp_path)
    assert not recorder.octets("sys/devices/system/cpu/possible", 10)
    assert "online" in recorder.names("sys/devices/system/cpu")


def test_links_are_kept_and_loops_end(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    tree.file("sys/real/file", "x")
    tree.link("sys/door", "sys/real")
    tree.link("sys/one", "sys/two")
    tree.link("sys/two", "sys/one")
    (tmp_path / "sys/out").symlink_to("../../..")
    (tmp_path / "sys/root").symlink_to("/etc")
    recorder = Recorder(tmp_path)
    assert recorder.text("sys/door/file") == "x"
    assert recorder.text("sys/one/file") is None
    assert recorder.text("sys/out/file") is None
    assert recorder.text("sys/root/passwd") is None
    assert recorder.kept["sys/door"].link == "real"
    assert "sys/root" not in recorder.kept
    assert recorder.names("sys/door") == ("file",)


def test_no_file_is_overwritten(server: SysfsTree, tmp_path: Path) -> None:
    target = tmp_path / "a.tar.gz"
    target.write_text("mine")
    with pytest.raises(UsageError, match="there already"):
        gather(server.root, target)
    assert target.read_text() == "mine"
    (tmp_path / "b.tar.gz").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="there already"):
        gather(server.root, tmp_path / "b.tar.gz")
    assert not (tmp_path / "nowhere").exists()


def test_a_name_taken_meanwhile_is_not_overwritten(server: SysfsTree, tmp_path: Path) -> None:
    target = tmp_path / "a.tar.gz"

    def slow(root: HostRoot) -> Machine:
        target.write_text("mine")
        return read_machine(root)

    with pytest.raises(UsageError, match="there already"):
        gather(server.root, target, slow)
    assert target.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "server"]


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("a.zip", UsageError, "Name it a.zip.tar.gz"),
        ("absent/a.tar.gz", ControlError, "No such file"),
        ("server/proc/cmdline/a.tar.gz", ControlError, "Not a directory"),
        ("nul\0.tar.gz", ControlError, "null"),
    ],
)
def test_a_bad_name_is_an_error(
    server: SysfsTree, tmp_path: Path, name: str, error: type[ControlError], says: str
) -> None:
    with pytest.raises(error, match=says):
        gather(server.root, tmp_path / name)


def test_a_reader_that_sees_more_than_the_record_is_told(
    server: SysfsTree, tmp_path: Path
) -> None:
    def sly(root: HostRoot) -> Machine:
        machine = read_machine(root)
        told = (root.path / "proc/cmdline").exists()  # past the recorder
        return replace(machine, cores=machine.cores if told else ())

    done = gather(server.root, tmp_path / "a.tar.gz", sly)
    assert done.differences == ("cores",)
    assert "WRONG: cores" in verb.describe(done)


def test_this_machine_reads_back_the_same(tmp_path: Path) -> None:
    done = gather(HostRoot(), tmp_path / "here.tar.gz")
    assert done.machine.live
    assert done.differences == done.left_out == ()
    assert done.size_bytes < 300_000
    with open_root(done.path) as root:
        again = read_machine(root)
    assert not again.live
    assert same(again, done.machine)
    host = os.uname().nodename.encode()
    contents = gzip.decompress(done.path.read_bytes())
    assert not [name for name, content in files(done.path).items() if host in content]
    assert str(Path.home()).encode() + b"/" not in contents


def test_the_verb(server: SysfsTree, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    verb.arguments(parser)
    target = tmp_path / "a.tar.gz"
    asked = parser.parse_args([str(target), "--root", str(server.path)])
    assert verb.run(asked, {}) == 0
    said = capsys.readouterr().out
    assert "2 packages, 2 NUMA nodes, 4 cores, 1 GPUs" in said
    asked = parser.parse_args([str(tmp_path / "b.tar.gz"), "--root", str(target), "--json"])
    assert verb.run(asked, {}) == 0
    assert '"schema": "slotdeck.gather/1"' in capsys.readouterr().out


@pytest.mark.parametrize("path", TREES or [None], ids=lambda path: path.name if path else "none")
def test_recorded_trees_read_back_the_same(path: Path | None, tmp_path: Path) -> None:
    if path is None:
        pytest.skip("no recorded trees (set SLOTDECK_SHARED to their folder)")
    with open_root(path) as root:
        done = gather(root, tmp_path / "a.tar.gz")
        assert same(done.machine, read_machine(root))
    assert done.differences == ()
    assert done.size_bytes < 300_000
