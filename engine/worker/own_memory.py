"""Moves weights out of the mapped file into our own memory; gives back what loading took."""

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path

from torch import nn

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_WHILE_LOADING, _AFTERWARDS = 1 << 18, 32 << 20
"""While weights come and go each has pages of its own, which go back at once; afterwards a step's
tensors stay in the heap, because new pages for each would cost more than the product."""


@contextlib.contextmanager
def tidy_heap() -> Iterator[None]:
    """Without it glibc keeps as much freed memory as the weights themselves take."""
    libc = ctypes.CDLL(None)
    if not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):
        yield
        return
    libc.mallopt(_M_MMAP_THRESHOLD, _WHILE_LOADING)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_THRESHOLD, _AFTERWARDS)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _AFTERWARDS)
        libc.malloc_trim(0)


def own_weights(module: nn.Module, folder: Path) -> None:
    """transformers may leave tensors in the mapped file, where they are pages of the page cache:
    those lie on whichever NUMA node first read the file, and no memory policy moves them."""
    if not _is_mapped(folder):
        return
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone()


def _is_mapped(folder: Path) -> bool:
    whole = str(folder.resolve())
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith(whole):
            return True
    return False
