"""A guest that a test boots; skipped with the reason where that was not asked for or cannot be."""

import os
import sys
from pathlib import Path

import pytest

from tests.numa.guest import Ended, Shape, run, why_not

ROOT = Path(__file__).parents[2]
PYTHON = f"PYTHONPATH={ROOT} {sys.executable}"


def booted(
    shape: Shape, command: str, *, work: Path, within_s: float, disk: Path | None = None
) -> Ended:
    """The command must succeed."""
    if os.environ.get("SLOTDECK_GUESTS") != "1":  # noqa: TID251 - the tests' own setting
        pytest.skip("boots a guest, which takes minutes: `make test-numa`")
    if missing := why_not():
        pytest.skip(f"no guest can be booted: {missing}")
    ended = run(shape, command, work=work, within_s=within_s, disk=disk)
    assert ended.code == 0, f"{ended.output}\n{ended.console[-3000:]}\nin {ended.seconds:.0f} s"
    return ended
