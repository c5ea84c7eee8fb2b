"""An offer as lines to read before it is applied: starts, stops, moves, and their cost."""

from engine.control import Change, Offer, StartLoad, words_of
from engine.core.placed import Placement
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span
from tui.present.text import clean, wrapped
from tui.present.units import count


def change_title(change: Change) -> str:
    """The question that the offer answers."""
    words = clean(words_of(change))
    return words[:1].upper() + words[1:]


def is_empty(offer: Offer) -> bool:
    """Whether applying it would do nothing that the offer knows of."""
    return not (offer.starts or offer.stops or offer.moves or offer.consequences)


def offer_lines(change: Change, offer: Offer, width: int, glyphs: Glyphs) -> list[Line]:
    """All parts of an offer that are not empty, wrapped."""
    lines: list[Line] = []
    for refusal in offer.refusals:
        words = f"{refusal.instance}: {refusal.why}"
        lines += item("refused", words, "error", width)
        lines += item("", refusal.do, "text", width)
    for word, placements, ink in (
        ("starts", offer.starts, "good"),
        ("moves", offer.moves, "accent"),
    ):
        for placement in placements:
            lines += _placed(word, placement, ink, width)
    for name in offer.stops:
        lines += item("stops", name, "warning", width)
    if offer.keeps:
        lines += item("keeps", f"{', '.join(offer.keeps)} as they are", "muted", width)
    if isinstance(change, StartLoad):
        words = (
            f"{count(change.concurrency, 'stream')} to each instance, "
            f"{change.input_len} tokens in, {change.output_len} out, "
            f"for at most {change.duration_s:.0f} s"
        )
        lines += item("sends", words, "accent", width)
    if offer.consequences:
        lines.append(())
        for words in offer.consequences:
            lines += item("note", words, "text", width)
    if not lines:
        lines += item("", "Nothing would change: it is all as asked already.", "muted", width)
    return [tuple(Span(spelled(each.text, glyphs), each.ink) for each in line) for line in lines]


def _placed(word: str, placement: Placement, ink: str, width: int) -> list[Line]:
    memory = f"{placement.memory.policy} {placement.memory.nodes}".strip()
    where = f"{placement.instance} on {placement.slot} → PUs {placement.pus}, memory {memory}"
    if placement.gpus:
        where += ", GPUs " + ",".join(str(gpu) for gpu in placement.gpus)
    lines = item(word, f"{where}, port {placement.port}", ink, width, name=placement.instance)
    for reason in placement.reasons:
        lines += item("", f"because {reason}", "muted", width)
    for warning in placement.warnings:
        lines += item("warning", warning, "warning", width)
    return lines


def item(word: str, text: str, ink: str, width: int, *, name: str = "") -> list[Line]:
    """A word at the left, and beside it what it is about, wrapped."""
    lines: list[Line] = []
    for at, part in enumerate(wrapped(text, width - 10)):
        label = Span(f"{word if at == 0 else '':>8}  ", ink)
        body = ink if ink in ("error", "warning", "muted") else "text"
        if at == 0 and name and part.startswith(name):
            lines.append((label, Span(name, "name"), Span(part[len(name) :], body)))
        else:
            lines.append((label, Span(part, body)))
    return lines
