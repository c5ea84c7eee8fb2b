"""What saving would change in a file, as lines with `-` and `+` in front."""

from collections.abc import Sequence
from difflib import SequenceMatcher

from engine.layout_files import Saving
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span
from tui.present.text import clean, fit, wrapped

AROUND = 1
"""Lines that stay, shown on each side of a change."""


def saving_lines(made: Saving, width: int, glyphs: Glyphs) -> list[Line]:
    """The whole file's changes, or that there are none."""
    lines: list[Line] = []
    if not made.is_own:
        words = "This file is another layout: what runs did not come from it."
        lines += [(Span(part, "warning"),) for part in wrapped(words, width)]
    lines += [
        (Span(part, "warning"),)
        for note in made.notes
        for part in wrapped(spelled(clean(note), glyphs), width)
    ]
    if made.after == made.before:
        return [*lines, (Span("The file says what runs already.", "muted"),)]
    before = made.before.splitlines() if made.before is not None else []
    if made.before is None:
        lines.append((Span("A new file:", "muted"),))
    elif "\r\n" in made.before and before == made.after.splitlines():
        lines.append((Span("Only line ends differ.", "muted"),))
    return [*lines, *_changes(before, made.after.splitlines(), width, glyphs)]


def _changes(
    before: Sequence[str], after: Sequence[str], width: int, glyphs: Glyphs
) -> list[Line]:
    lines: list[Line] = []
    for group in SequenceMatcher(None, before, after, autojunk=False).get_grouped_opcodes(AROUND):
        if lines:
            lines.append((Span("  " + glyphs.more, "faint"),))
        for kind, old, old_end, new, new_end in group:
            if kind == "equal":
                lines += [_line(" ", text, "muted", width, glyphs) for text in before[old:old_end]]
                continue
            lines += [_line("-", text, "error", width, glyphs) for text in before[old:old_end]]
            lines += [_line("+", text, "good", width, glyphs) for text in after[new:new_end]]
    return lines


def _line(mark: str, text: str, ink: str, width: int, glyphs: Glyphs) -> Line:
    return (Span(fit(f"{mark} {clean(text)}", width, more=glyphs.more).rstrip(), ink),)
