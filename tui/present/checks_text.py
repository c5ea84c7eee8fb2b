"""Asked against got, as lines."""

from engine.control import Verified
from engine.core.status import InstanceStatus
from tui.present.details import binding_text
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span
from tui.present.text import clean, fit, wrapped


def checks_lines(
    each: InstanceStatus, found: Verified | None, width: int, glyphs: Glyphs
) -> list[Line]:
    """What was asked, then each difference with what to do; or that there is none."""
    lines: list[Line] = _fact("placed", binding_text(each), "text", width)
    if found is None:
        lines += _fact("", "looking at its threads, memory and port…", "muted", width)
    elif found.verified:
        words = "all as asked for: threads, memory policy, pages, GPUs, port"
        lines += [(), *_fact(glyphs.marks["ready"], words, "good", width)]
    else:
        for one in found.differences:
            lines += [(), *_fact(clean(one.what), "", "error", width)]
            lines += _fact("  asked", one.asked, "text", width)
            lines += _fact("  got", one.got, "warning", width)
            lines += _fact("  do", one.do, "text", width)
        if not found.differences:
            lines += [(), *_fact("", f"not checked: it is {each.state.value}", "muted", width)]
    for words in found.repaired if found else ():
        lines += _fact("repaired", words, "good", width)
    return [tuple(Span(spelled(one.text, glyphs), one.ink) for one in line) for line in lines]


def _fact(label: str, words: str, ink: str, width: int) -> list[Line]:
    room = 13
    return [
        (Span(fit(f" {label}" if at == 0 else "", room), "label"), Span(part, ink))
        for at, part in enumerate(wrapped(words, width - room))
    ]
