"""What differs from what was asked, what a repair would do about it, and what it has done."""

from engine.control import Difference, Verified
from engine.core.status import InstanceStatus
from tui.present.checks_text import checks_lines
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span
from tui.present.text import clean, wrapped

THREADS = "affinity"
PAGES = ("pages", "file pages")


def can_repair(differences: tuple[Difference, ...]) -> bool:
    """Whether a repair can bring back any of it: threads and pages, nothing else."""
    return any(one.what == THREADS or one.what in PAGES for one in differences)


def repair_lines(
    each: InstanceStatus, found: Verified | None, width: int, glyphs: Glyphs
) -> list[Line]:
    """Asked against got, then what Enter does."""
    lines = checks_lines(each, found, width, glyphs)
    if found is None or found.verified:
        return lines
    kinds = [one.what for one in found.differences]
    does = []
    if THREADS in kinds:
        does.append(f"pins every thread to PU {clean(each.pus)} again")
    if any(kind in PAGES for kind in kinds):
        nodes = clean(each.memory.nodes)
        does.append(
            f"moves the pages that lie elsewhere to NUMA node {nodes}"
            if nodes
            else "moves the pages that lie elsewhere back to its NUMA node"
        )
    lines += [(), (Span("A repair", "title"),)]
    if does:
        does.append("its requests go on meanwhile, slower while pages move")
    others = dict.fromkeys(clean(kind) for kind in kinds if kind not in (THREADS, *PAGES))
    if others:
        does.append(f"does not change: {', '.join(others)} (see `do` above)")
    for words in does:
        for at, part in enumerate(wrapped(words, width - 3)):
            mark = f" {glyphs.dot} " if at == 0 else "   "
            lines.append((Span(mark, "muted"), Span(spelled(part, glyphs), "text")))
    return lines
