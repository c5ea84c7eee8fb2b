"""A command line as lines: the shell's twin, then each part with who asked for it."""

from collections.abc import Iterable

from engine.control import CommandLine
from engine.core.command import SHELL, Explained
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span
from tui.present.text import cell_width, clean, fit, wrapped

HEADS = {"program": "Program", "flag": "Flags", "variable": "Environment"}


def command_lines(told: CommandLine, width: int, glyphs: Glyphs) -> list[Line]:
    """All of it, wrapped."""
    lines: list[Line] = [(Span("To type by hand (y copies it)", "title"),)]
    lines += [
        (Span(f"  {part}", "text"),) for part in wrapped(clean(told.shell), width - 4, indent="  ")
    ]
    for kind, head in HEADS.items():
        # What is merely inherited comes last.
        rows = sorted(
            (each for each in told.parts if each.kind == kind), key=lambda one: one.source == SHELL
        )
        if rows:
            lines += [(), (Span(head, "title"), Span(f"  {len(rows)}", "muted"))]
            lines += _rows(rows, width)
    return [tuple(Span(spelled(each.text, glyphs), each.ink) for each in line) for line in lines]


def _rows(rows: Iterable[Explained], width: int) -> list[Line]:
    rows = list(rows)
    sources = max(cell_width(clean(each.source)) for each in rows)
    room = max(16, width - 4 - min(sources, width // 3) - 2)
    lines: list[Line] = []
    for each in rows:
        source = fit(clean(each.source), min(sources, width // 3))
        name, joint = clean(each.name), "=" if each.kind == "variable" else " "
        text = f"{name}{joint}{clean(each.value)}".strip()
        for at, part in enumerate(wrapped(text, room, indent="  ")):
            tail = source if at == 0 else ""
            if at == 0 and name and part.startswith(name):
                spans: Line = (Span("  "), Span(name, "name"), Span(part[len(name) :], "text"))
            else:
                spans = (Span("  "), Span(part, "text"))
            pad = room - cell_width(part) + 2
            lines.append((*spans, Span(" " * max(1, pad)), Span(tail, _source_ink(each.source))))
    return lines


def _source_ink(source: str) -> str:
    kind = source.partition(":")[0]
    return {"layout": "accent", "placement": "good", "profile": "warning"}.get(kind, "muted")
