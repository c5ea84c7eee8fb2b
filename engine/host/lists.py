"""Lists, masks and numbers as the kernel writes them into small files."""

import re
from collections.abc import Iterable

from engine.core.cpuset import CpuSet
from engine.host.root import HostRoot

_MASKS = ("map", "siblings", "core_cpus", "package_cpus")
"""How the names of the mask files end that have a list beside them."""


def read_list(root: HostRoot, name: str) -> CpuSet | None:
    """A kernel list file; None where it is absent or not a list."""
    text = root.line(name)
    if text is None:
        return None
    try:
        return CpuSet.parse(text)
    except ValueError:
        return None


def read_mask(root: HostRoot, name: str) -> CpuSet | None:
    """A kernel mask file (`00000000,0000ffff`, highest word first), as old kernels have them."""
    text = root.line(name)
    if text is None or not re.fullmatch(r"[0-9a-fA-F]{1,8}(,[0-9a-fA-F]{1,8})*", text):
        return None
    bits = 0
    for word in text.split(","):
        bits = bits << 32 | int(word, 16)
    return _of_bits(bits)


def read_index(root: HostRoot, name: str) -> int | None:
    """A number; the kernel writes -1 (old ones 65535) for "not told", which is None here."""
    text = root.line(name)
    if text is None or not re.fullmatch(r"[0-9]{1,9}", text):
        return None
    return None if int(text) == 65535 else int(text)


def read_set(root: HostRoot, *names: str) -> CpuSet | None:
    """The first readable of files that tell the same: lists (`…list`, `…cpus`) or masks."""
    for name in names:
        found = read_mask(root, name) if name.endswith(_MASKS) else read_list(root, name)
        if found is not None:
            return found
    return None


def numbered(names: Iterable[str], word: str) -> tuple[int, ...]:
    """The N of the names `wordN`, ascending."""
    start = len(word)
    return tuple(
        sorted(
            int(name[start:])
            for name in names
            if name.startswith(word)
            and (tail := name[start:]).isdecimal()
            and tail.isascii()
            and len(tail) <= 6
        )
    )


def _of_bits(bits: int) -> CpuSet:
    return CpuSet(index for index in range(bits.bit_length()) if bits >> index & 1)
