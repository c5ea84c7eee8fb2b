"""Archives of recorded machines: all kinds open, bad ones are refused, nothing stays behind."""

import bz2
import gzip
import io
import lzma
import os
import random
import stat
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from engine.core.errors import UsageError
from engine.core.synthetic import parse_synthetic
from engine.host import archive
from engine.host.archive import open_root
from engine.host.machine import read_machine
from tests.shared import needs
from tests.sysfs_tree import write_machine

SYS = "machine/sys/kernel"


def packed(path: Path, entries: Iterable[tarfile.TarInfo | tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as writer:
        for entry in [(f"{SYS}/name", b"linux"), *entries]:
            if isinstance(entry, tarfile.TarInfo):
                writer.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                writer.addfile(info, io.BytesIO(entry[1]))
    return path


def special(name: str, kind: bytes, linked: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linked
    return info


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    folder = tmp_path / "recorded"
    write_machine(parse_synthetic("pack:2 core:2 mem:1GiB"), folder)
    return folder


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("top", [".", "machine", "./machine"])
def test_every_kind_of_archive_reads_like_its_folder(
    recorded: Path, tmp_path: Path, kind: str, top: str
) -> None:
    path = tmp_path / f"machine.tar.{kind}"
    with tarfile.open(path, f"w:{kind}") as writer:  # type: ignore[call-overload]
        writer.add(recorded, top)
    with open_root(recorded) as folder, open_root(path) as unpacked:
        assert read_machine(unpacked) == read_machine(folder)
        assert not unpacked.live
        kept = unpacked.path
    assert not kept.exists()


def test_a_folder_may_hold_the_machine_one_level_down(recorded: Path) -> None:
    with open_root(recorded.parent) as root:
        assert root.path == recorded.resolve()


def test_the_copy_is_private_and_goes_even_after_an_error(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar.gz", [])
    with pytest.raises(ZeroDivisionError), open_root(path) as root:  # noqa: PT012
        whole = root.path.parent
        assert stat.S_IMODE(whole.stat().st_mode) == 0o700
        raise ZeroDivisionError
    assert not whole.exists()


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../outside", "machine/../../outside", "machine/sys/../../../outside"]
)
def test_entries_outside_are_refused(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / "a.tar.gz", [(name, b"bad")])
    with pytest.raises(UsageError, match="points outside"), open_root(path):
        pass
    assert not (tmp_path / "outside").exists()


def test_links_stay_inside_or_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    path = packed(
        tmp_path / "a.tar.gz",
        [
            special(f"{SYS}/good", tarfile.SYMTYPE, "../kernel/name"),
            special(f"{SYS}/hard", tarfile.LNKTYPE, f"{SYS}/name"),
            special(f"{SYS}/away", tarfile.SYMTYPE, str(tmp_path / "secret")),
            special(f"{SYS}/up", tarfile.SYMTYPE, "../../../../secret"),
            special(f"{SYS}/deep/flat", tarfile.SYMTYPE, "../../../top"),
            # Inside by its text; outside by way of the link before it.
            special(f"{SYS}/sly", tarfile.SYMTYPE, "deep/flat/../../../../x"),
            ("machine/top/file", b"top"),
        ],
    )
    with open_root(path) as root:
        assert root.text("sys/kernel/good") == "linux"
        assert root.text("sys/kernel/hard") == "linux"
        assert root.text("sys/kernel/deep/flat/file") == "top"
        left = {
            name for name in root.names("sys/kernel") if (root.path / SYS[8:] / name).is_symlink()
        }
        assert left == {"good"}
        for found in root.path.rglob("*"):
            assert os.path.realpath(found).startswith(str(root.path.parent))


def test_no_file_is_written_through_a_link(tmp_path: Path) -> None:
    path = packed(
        tmp_path / "a.tar.gz",
        [
            special("machine/sys/door", tarfile.SYMTYPE, "kernel"),
            ("machine/sys/door/name", b"overwritten"),
        ],
    )
    with open_root(path) as root:
        assert root.text("sys/kernel/name") == "linux"


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_left_out(tmp_path: Path, kind: bytes) -> None:
    with open_root(packed(tmp_path / "a.tar.gz", [special(f"{SYS}/odd", kind)])) as root:
        assert root.names("sys/kernel") == ("name",)


def test_entries_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar.gz", [(f"{SYS}/name/below", b"")])
    with pytest.raises(UsageError, match="contradicts"), open_root(path):
        pass


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", 1 << 20)
    path = packed(tmp_path / "a.tar.gz", [(f"{SYS}/zeros", bytes(3 << 20))])
    assert path.stat().st_size < 10_000
    with pytest.raises(UsageError, match="more than 1 MiB"), open_root(path):
        pass
    twice = packed(
        tmp_path / "b.tar.gz",
        [
            (f"{SYS}/zeros", bytes(900_000)),
            special(f"{SYS}/again", tarfile.LNKTYPE, f"{SYS}/zeros"),
        ],
    )
    with pytest.raises(UsageError, match="more than 1 MiB"), open_root(twice):
        pass
    monkeypatch.setattr(archive, "MOST_ENTRIES", 3)
    many = packed(tmp_path / "c.tar.gz", [(f"{SYS}/{index}", b"") for index in range(4)])
    with pytest.raises(UsageError, match="more than 3 entries"), open_root(many):
        pass


def test_what_is_no_machine_is_said(tmp_path: Path) -> None:
    cases = {
        "absent": "no such folder or file",
        "text.tar.gz": "no archive",
        "short.tar.gz": "no archive",
        "empty": "no folder sys",
        "pipe": "neither a folder nor a file",
        "nul\0": "null",
    }
    (tmp_path / "text.tar.gz").write_text("hello" * 1000)
    whole = packed(tmp_path / "whole.tar.gz", [(f"{SYS}/x", os.urandom(50_000))]).read_bytes()
    (tmp_path / "short.tar.gz").write_bytes(whole[:30_000])
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, says in cases.items():
        with pytest.raises(UsageError, match=says), open_root(tmp_path / name):
            pass


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("cut", [0, 1, 5, 20, 100, 400])
def test_cut_and_changed_archives_are_errors_or_machines(
    tmp_path: Path, cut: int, pack: Callable[[bytes], bytes]
) -> None:
    made = packed(tmp_path / "whole.tar.gz", [(f"{SYS}/x", random.Random(1).randbytes(600))])
    whole = pack(gzip.decompress(made.read_bytes()))
    (tmp_path / "bad.tar.gz").write_bytes(whole[:cut])
    with pytest.raises(UsageError), open_root(tmp_path / "bad.tar.gz"):
        pass
    changed = bytearray(whole)
    changed[min(cut + 12, len(whole) - 1)] ^= 0xFF
    (tmp_path / "changed.tar.gz").write_bytes(changed)
    try:
        with open_root(tmp_path / "changed.tar.gz"):
            pass
    except UsageError:
        pass


def test_recorded_archives_open() -> None:
    with open_root(needs("machines/g1.tar.gz")) as root:
        assert len(read_machine(root).numa_nodes) == 6
    with open_root(needs("machines/trees/16em64t-4s2c2t-offlines.tar.bz2")) as root:
        assert read_machine(root).pus.offline
