"""Who shares the files that a process has mapped, on real processes."""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.host.pages import parts, shared_files
from engine.host.root import HostRoot

ROOT = HostRoot()
MAPS = """
import mmap, sys
file = open(sys.argv[1], "rb")
mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
print("mapped", flush=True)
sys.stdin.read()
"""


@contextmanager
def a_program_that_maps(path: Path) -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-c", MAPS, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "mapped\n"
        try:
            yield process.pid
        finally:
            process.kill()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(bytes(1 << 20))
    return path


def kinds(pid: int, path: Path, **more: object) -> set[str]:
    inode = str(path.stat().st_ino)
    found = parts(ROOT, pid, **more)  # type: ignore[arg-type]
    return {part.kind for part in found if part.file and part.file[1] == inode}


def test_a_file_that_nobody_else_has_mapped_is_not_shared(weights: Path) -> None:
    with weights.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        shared = shared_files(ROOT, [os.getpid()])
        assert kinds(os.getpid(), weights) == {"file"}
        assert kinds(os.getpid(), weights, shared=shared) == {"file"}


def test_a_file_that_another_program_has_mapped_names_that_one(weights: Path) -> None:
    with (
        weights.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ),
        a_program_that_maps(weights) as other,
    ):
        shared = shared_files(ROOT, [os.getpid()])
        assert [other] in shared.values()
        assert kinds(os.getpid(), weights, shared=shared) == {"shared"}
        # Several processes of one engine are not others.
        both = shared_files(ROOT, [os.getpid(), other])
        assert kinds(other, weights, shared=both) == {"file"}
