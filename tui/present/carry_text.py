"""What is carried where, what that costs, and whether it may go there."""

from tui.drag import Carry, Kind
from tui.present.footprint import Footprint
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span, cut
from tui.present.legality import Legality
from tui.present.text import clean, fit, wrapped

DOING = {Kind.MOVE: "Moving", Kind.RESIZE: "Resizing", Kind.DRAW: "New"}
INKS = {"good": "good", "bad": "error", "maybe": "warning"}


def carry_lines(
    carry: Carry, shape: Footprint, cost: Legality, answer: Legality, width: int, glyphs: Glyphs
) -> list[Line]:
    """The names with their slots and what is known at once, below it what the service says."""
    names = ", ".join(clean(name) for name in carry.cargo.names)
    head: Line = (
        Span(f" {DOING[carry.cargo.kind]} ", "accent"),
        Span(names, "name"),
        Span(spelled(f" {glyphs.arrow} {where(carry, shape)}", glyphs), "text"),
    )
    words = answer.text
    if not cost.final:
        head = (*head, Span(spelled(f" · {cost.text}", glyphs), INKS[cost.verdict]))
        if answer is cost:
            words = "asking the service…"
    lines = wrapped(words, max(8, width - 2)) if width > 100 else [words]
    return [
        cut(head, width, glyphs.more),
        *(
            (
                Span(
                    spelled(fit(f" {line}", width, more=glyphs.more), glyphs), INKS[answer.verdict]
                ),
            )
            for line in lines
        ),
    ]


def where(carry: Carry, shape: Footprint) -> str:
    """The slots that would be taken, in short."""
    if len(shape.seats) > 1:
        return ", ".join(seat.slot for seat in shape.seats)
    if shape.seats:
        return shape.seats[0].slot
    return carry.slot or "choose a slot"


def ghost_text(carry: Carry, shape: Footprint, answer: Legality | None) -> str:
    """What hangs under the pointer: `chat → core:8-15`, and why not."""
    names = clean(carry.cargo.names[0])
    if len(carry.cargo.names) > 1:
        names += f" and {len(carry.cargo.names) - 1} more"
    slot = (where(carry, shape) if len(shape.seats) < 2 else carry.slot) or "…"
    bad = answer is not None and answer.verdict == "bad"
    return f"{names} → {slot}{' ✗' if bad else ''}" if carry.slot else f"{names} → …"
