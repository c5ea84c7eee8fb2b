"""Moves weights out of the mapped file into memory of the process's own."""

from pathlib import Path

from torch import nn


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
