"""The help screen's lines, made from the same actions as the footer."""

from collections.abc import Sequence

from tui.actions import ACTIONS, Action
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span
from tui.present.keys import keys_of, shown
from tui.present.map_levels import heat
from tui.present.text import fit, wrapped
from tui.view import View

AROUND = (
    ("tab", "next pane: map, instances, log"),
    ("arrows", "move the cursor in the focused pane"),
    ("enter", "on a slot: select the instance that holds it"),
    ("[ ]", "while something is carried: fewer or more cores"),
    ("esc", "put back, close, cancel"),
    ("ctrl+p", "all actions by name"),
    ("ctrl+q", "close at once"),
)
MOUSE = (
    "Drag an instance from the table or the map onto a slot: you get a plan to confirm.",
    "Drag an end of the selected one: more or fewer cores. What is marked goes together.",
    "Two clicks on a place go nearer, on the title's words back; ctrl+wheel does so too.",
    "Shift+drag selects text in your own terminal; M gives it the mouse altogether.",
    "The log selects by dragging, ctrl+c copies that (where the terminal allows OSC 52).",
)
STATES = (
    ("starting", "loads its model"),
    ("ready", "has generated a token"),
    ("stopping", "finishes its requests"),
    ("stopped", "by you or by its layout"),
    ("backoff", "crashed; waits before it starts again"),
    ("failed", "crashed too often; the reason is shown"),
)


def help_lines(
    view: View, width: int, glyphs: Glyphs, actions: Sequence[Action] = ACTIONS
) -> list[Line]:
    """Keys that work here with why some do not work now, then marks."""
    lines: list[Line] = [(Span("Keys", "title"),)]
    for action in actions:
        reason = action.why_not(view)
        ink = "key:danger" if action.apart else "key"
        keys = " ".join(shown(key) for key in keys_of(action.id, action.key, view.keys))
        lines.append((Span(f"  {keys:<8}", ink), Span(action.does, "text")))
        if reason:
            why = wrapped(f"not now: {reason}", width - 10)
            lines += [(Span(" " * 10 + part, "muted"),) for part in why]
    lines += [(), (Span("Around", "title"),)]
    lines += [(Span(f"  {key:<8}", "key"), Span(words, "text")) for key, words in AROUND]
    lines += [(), (Span("Mouse", "title"),)]
    lines += [(Span("  " + words, "text"),) for words in MOUSE]
    lines += [(), (Span("States", "title"),)]
    for state, words in STATES:
        mark = glyphs.marks[state]
        lines.append((Span(fit(f"  {mark} {state}", 14), f"state:{state}"), Span(words, "text")))
    lines += [(), (Span("Map", "title"),)]
    levels = [Span(glyph, heat(at)) for at, glyph in enumerate(glyphs.levels)]
    lines.append((Span("  "), *levels, Span("    load of a PU, idle to full", "text")))
    if glyphs.half:
        lines.append(
            (
                Span("  "),
                Span(glyphs.half, "heat:7:1"),
                Span("           two SMT siblings in one cell: upper and lower", "text"),
            )
        )
    for glyph, ink, words in (
        ("a", "owner:0", "a letter is the instance that holds the PU"),
        (glyphs.several, "several", "held by more than one"),
        (glyphs.free, "faint", "held by none"),
        (glyphs.taken, "taken", "taken by a program that is not ours; the cursor names it"),
        (glyphs.ends, "owner:0", "the ends of the selected instance: drag them, or press c"),
        (glyphs.barred, "barred", "barred: outside our cpuset or affinity"),
        (glyphs.unknown, "faint", "not known; the reason is below the table"),
    ):
        lines.append((Span("  "), Span(f"{glyph:<12}", ink), Span(words, "text")))
    return [tuple(Span(spelled(each.text, glyphs), each.ink) for each in line) for line in lines]
