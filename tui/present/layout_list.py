"""Layout files as rows of a list, and the words above what one of them would change."""

from collections.abc import Sequence
from pathlib import Path

from engine.layout_folders import FoundLayout
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span
from tui.present.text import cell_width, clean, fit, wrapped


def layout_rows(
    layouts: Sequence[FoundLayout],
    width: int,
    glyphs: Glyphs,
    *,
    running: str,
    selected: int,
    marked: Sequence[Path] = (),
) -> list[Line]:
    """Pointer, A or B where it is marked, whether it runs, file, whose it is, name."""
    files = [clean(each.path.name) for each in layouts]
    room = min(max((cell_width(name) for name in files), default=4), max(8, width // 3))
    letters = dict(zip(marked, "AB", strict=False))
    rows: list[Line] = []
    for at, (each, file) in enumerate(zip(layouts, files, strict=True)):
        runs = str(each.path) == running
        head = (
            Span(glyphs.pointer if at == selected else " ", "pointer"),
            *([Span(f"{letters.get(each.path, ' ')} ", "accent")] if letters else []),
            Span(f"{glyphs.marks['ready']} " if runs else "  ", "good"),
            Span(fit(spelled(file, glyphs), room, more=glyphs.more), "name"),
            Span(f"  {'yours' if each.is_own else 'shipped':<9}", "muted"),
        )
        used = sum(cell_width(one.text) for one in head)
        words = f"cannot be read: {each.problem}" if each.problem else each.name
        ink = "error" if each.problem else "text"
        name = fit(spelled(clean(words), glyphs), max(0, width - used), more=glyphs.more)
        rows.append((*head, Span(name, ink)))
    return rows


def layout_head(each: FoundLayout, width: int, glyphs: Glyphs) -> list[Line]:
    """Its path and the idea that its first comment tells."""
    lines: list[Line] = [(Span(clean(shortened(each.path)), "muted"),)]
    if each.idea:
        lines += [(Span(spelled(part, glyphs), "text"),) for part in wrapped(each.idea, width)]
    return [*lines, ()]


def shortened(path: Path) -> str:
    """`~` for the home folder."""
    home = str(Path.home())
    text = str(path)
    return "~" + text[len(home) :] if text.startswith(home + "/") else text


def file_lines(text: str, width: int, glyphs: Glyphs) -> list[Line]:
    """The file itself; comments faint, tables bright."""
    lines: list[Line] = []
    for line in text.splitlines():
        shown = fit(spelled(clean(line), glyphs), width, more=glyphs.more).rstrip()
        start = shown.lstrip()
        ink = "muted" if start.startswith("#") else "accent" if start.startswith("[") else "text"
        lines.append((Span(shown, ink),))
    return lines
