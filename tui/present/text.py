"""Untrusted text made safe for a terminal, and fitted into a number of cells."""

import re
import textwrap
from collections.abc import Sequence
from functools import lru_cache

from rich.cells import cell_len, set_cell_size

ESCAPES = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: titles, links, clipboard writes
    r"|\x1b[P^_X][^\x1b]*(?:\x1b\\)?"  # DCS, PM, APC, SOS
    r"|\x1b\[[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor moves
    r"|\x1b[ -/]*[0-~]?"  # two-byte escapes
    r"|\x9b[0-?]*[ -/]*[@-~]?"
)
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
"""C0 and C1 codes, and the marks that reorder or hide what follows them."""


def cell_width(text: str) -> int:
    """Terminal cells that the text takes (wide letters take two)."""
    return cell_len(text)


def is_narrow(text: str) -> bool:
    """Whether each letter takes one cell."""
    return all(cell_len(char) == 1 for char in text if char > "\x7f")


@lru_cache(maxsize=1024)
def clean(text: str) -> str:
    """One line without anything that a terminal would act on."""
    text = ESCAPES.sub("", text)
    return UNSEEN.sub("", text.replace("\t", " ").replace("\n", " ").replace("\r", " "))


def clean_lines(text: str) -> str:
    """Several lines, each safe; a progress bar that rewrites its line shows its last form."""
    kept = []
    for line in text.replace("\r\n", "\n").split("\n"):
        last = line.rstrip("\r").rpartition("\r")[2]
        kept.append(UNSEEN.sub("", ESCAPES.sub("", last)).expandtabs(4))
    return "\n".join(kept)


def fit(text: str, width: int, *, right: bool = False, more: str = "…") -> str:
    """The text in exactly `width` cells, cut with a mark where it is longer."""
    if width <= 0:
        return ""
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + more if width > 1 else more
    pad = " " * (width - length)
    return pad + text if right else text + pad


@lru_cache(maxsize=512)
def wrapped(text: str, width: int, *, indent: str = "") -> Sequence[str]:
    """Lines of at most `width` cells for Latin text; long words are broken."""
    lines = textwrap.wrap(clean(text), max(8, width), subsequent_indent=indent)
    return tuple(lines) or ("",)
