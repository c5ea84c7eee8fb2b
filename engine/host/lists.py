"""Lists, masks and numbers as the kernel writes them into small files."""

import re

from engine.core.cpuset import CpuSet
from engine.host.root import HostRoot


def read_list(root: HostRoot, name: str) -> CpuSet | None:
    """A kernel list file; None where it is absent or not a list."""
    text = root.text(name)
    if text is None:
        return None
    try:
        return CpuSet.parse(text)
    except ValueError:
        return None


def read_mask(root: HostRoot, name: str) -> CpuSet | None:
    """A kernel mask file (`00000000,0000ffff`, highest word first), as old kernels have them."""
    text = root.text(name)
    if text is None or not re.fullmatch(r"[0-9a-fA-F]{1,8}(,[0-9a-fA-F]{1,8})*", text):
        return None
    bits = 0
    for word in text.split(","):
        bits = bits << 32 | int(word, 16)
    return CpuSet(index for index in range(bits.bit_length()) if bits >> index & 1)


def read_index(root: HostRoot, name: str) -> int | None:
    """A number; the kernel writes -1 (old ones 65535) for "not told", which is None here."""
    text = root.text(name)
    if text is None or not re.fullmatch(r"[0-9]{1,9}", text):
        return None
    return None if int(text) == 65535 else int(text)
