"""Recorded data that tests read when it is there, and that is never copied into the project."""

import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest


def shared(name: str) -> Path:
    """A file or folder of it, from SLOTDECK_SHARED or a folder beside the repository."""
    told = os.environ.get("SLOTDECK_SHARED")  # noqa: TID251 - the tests' own setting
    root = Path(told) if told else Path(__file__).parents[2] / "shared"
    return root / name


def needs(name: str) -> Path:
    """The same; skips the test where it is absent."""
    path = shared(name)
    if not path.exists():
        pytest.skip(f"no recorded data: {name} (set SLOTDECK_SHARED to its folder)")
    return path


def unpack(
    archive: tarfile.TarFile, folder: Path, members: Iterable[tarfile.TarInfo] | None = None
) -> None:
    """Links and all; the first releases of Python 3.11 know no filters yet."""
    if hasattr(tarfile, "tar_filter"):
        archive.extractall(folder, members, filter="tar")
    else:
        archive.extractall(folder, members)
