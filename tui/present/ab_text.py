"""A comparison as lines: what will happen, how it goes, what came of it."""

from engine.core.comparing.telling import Judged, Planned
from tui.present.ab_state import AT_WORK, AbState, Phase
from tui.present.ab_table import ratio_tables, verdict_tables
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span
from tui.present.offer_text import item
from tui.present.text import clean, fit, wrapped
from tui.present.units import count, span

LOOKS_FROM = 6


def ab_lines(state: AbState, width: int, now: float, glyphs: Glyphs) -> list[Line]:
    """All of it, for the phase that it is in."""
    match state.phase:
        case Phase.PLANNING:
            lines = _text("looking at what it would do…", "muted", width)
        case Phase.OFFERED:
            lines = _offer(state, width)
        case Phase.RUNNING:
            lines = _running(state, width, now, glyphs)
        case Phase.DECIDING | Phase.SETTLING | Phase.OVER:
            lines = _result(state, width, now)
    return [tuple(Span(spelled(each.text, glyphs), each.ink) for each in line) for line in lines]


# Before


def _offer(state: AbState, width: int) -> list[Line]:
    it = state.planned
    assert it is not None
    lines: list[Line] = []
    for letter, arm in zip("ABC", it.arms, strict=False):
        lines.append((Span(f"{letter:>8}  ", "accent"), Span(clean(arm.name), "name")))
        for place in arm.places:
            lines += item("", place, "muted", width)
    if len(it.comparisons) > 1:
        words = "; ".join(f"{a} with {b}" for a, b in it.comparisons)
        lines += item("compares", words, "text", width)
    lines.append(())
    if it.stops:
        words = f"{', '.join(it.stops)}, until the comparison is over"
        lines += item("stops", words, "warning", width)
    for words in it.losses:
        lines += item("loses", words, "warning", width)
    if not it.stops:
        lines += item("stops", "nothing: no instance runs now", "muted", width)
    lines += item("starts", f"all arms, at most {count(it.starts, 'start')} in all", "text", width)
    lines += item("load", _load(it), "text", width)
    for words in it.notes:
        lines += item("", words, "muted", width)
    lines += item("takes", _time(it), "accent", width)
    lines.append(())
    lines += item("after", _afterwards(it), "text", width)
    return lines


def _load(it: Planned) -> str:
    streams = f"{count(it.streams, 'stream')} to each whole arm"
    quiet = f"first {count(it.aa_pairs, 'pair')} of A against itself, then " if it.aa_pairs else ""
    return f"{streams}; {quiet}at most {count(it.pairs, 'pair')} of A and B"


def _time(it: Planned) -> str:
    if it.most_s is None:
        return "as long as its pairs need"
    return (
        f"at most {span(it.most_s)} (a pair that has begun may end later), and then the start of "
        "what ran before"
    )


def _afterwards(it: Planned) -> str:
    words = "you choose: keep an arm, or roll back to what runs now"
    left = [
        f"{arm.name} would leave out {', '.join(arm.left_out)}" for arm in it.arms if arm.left_out
    ]
    return f"{words}. Keeping {'; '.join(left)}" if left else words


# While it runs


def _running(state: AbState, width: int, now: float, glyphs: Glyphs) -> list[Line]:
    it = state.planned
    assert it is not None
    lines: list[Line] = []
    if len(it.comparisons) > 1:
        words = f"comparison {state.comparison} of {len(it.comparisons)}"
        lines.append((Span(words, "title"),))
    for letter, name in zip("AB", state.arms, strict=True):
        lines.append(_arm_line(state, letter, name, width, now, glyphs))
    lines += _progress(state, it, width, now, glyphs)
    for judged in state.judged:
        lines += _text(judged.sentence, "text", width)
    newest = state.newest
    if late := _too_slow(state, it):
        lines += _text(late, "warning", width)
    if newest and newest.void:
        lines += _text(f"the newest pair is void: {newest.void}", "warning", width)
    if state.stopping:
        lines += _text("ending: what was measured is kept", "warning", width)
    if newest is None:
        lines.append(())
        lines += [(Span(fit(clean(words), width).rstrip(), "muted"),) for words in state.said]
        return lines
    lines += ratio_tables(newest, width, glyphs)
    told = state.paired
    valid = told.valid if told else 0
    if told is None:
        words = "A against itself: how far apart equal arms come out"
    elif valid < LOOKS_FROM:
        words = f"no verdict before {LOOKS_FROM} valid pairs"
    else:
        words = "intervals before the verdict: it is stricter, as it may look more than once"
    return [*lines, (), *_text(words, "muted", width)]


def _arm_line(
    state: AbState, letter: str, name: str, width: int, now: float, glyphs: Glyphs
) -> Line:
    block = state.block
    runs = block is not None and block.arm == letter.lower()
    mark = glyphs.marks["ready"] if runs else glyphs.marks["stopped"]
    doing = ""
    if block and runs:
        doing = f"{block.phase}, {span(block.elapsed_s + max(0.0, now - state.block_at))}"
    room = max(8, width - len(doing) - 8)
    return (
        Span(f" {mark} ", "good" if runs else "faint"),
        Span(f"{letter}  ", "accent"),
        Span(fit(clean(name), room, more=glyphs.more).rstrip(), "name" if runs else "text"),
        Span(f"  {doing}", "good"),
    )


def _too_slow(state: AbState, it: Planned) -> str:
    """Said early: time that ends before a verdict is due is time lost."""
    if state.newest is None or it.most_s is None:
        return ""
    done = sum(one.number for one in (state.quiet, state.paired) if one)
    needed = state.newest.elapsed_s / done * (it.aa_pairs + LOOKS_FROM)
    most = it.most_s / len(it.comparisons)
    if needed <= most:
        return ""
    return (
        f"At this pace {LOOKS_FROM} pairs take {span(needed)}, and it may take {span(most)}: no "
        "verdict. End it (esc) and give it more time (t)"
    )


def _progress(state: AbState, it: Planned, width: int, now: float, glyphs: Glyphs) -> list[Line]:
    pair, quiet, newest = state.paired, state.quiet, state.newest
    done = (quiet.number if quiet else 0) + (pair.valid if pair else 0)
    share = min(1.0, done / max(1, it.aa_pairs + it.pairs))
    bar = max(8, min(30, width // 4))
    full = round(share * bar)
    words = []
    if it.aa_pairs and pair is None:
        words.append(f"A/A {quiet.number if quiet else 0} of {it.aa_pairs}")
    else:
        words.append(f"pair {pair.valid if pair else 0} of {it.pairs}")
    if newest and newest.left_s is not None:
        words.append(f"at most {span(newest.left_s)} left")
    if state.began_at is not None:
        words.append(f"{span(now - state.began_at)} so far")
    lines: list[Line] = [
        (
            Span(f" {glyphs.full * full}", "good"),
            Span(glyphs.rest * (bar - full), "track"),
            Span(f"  {' · '.join(words)}", "text"),
        )
    ]
    about = []
    if state.orders:
        about.append(f"order {' '.join(state.orders[-12:])}")
    floors = [one.noise_floor for one in newest.ratios if one.noise_floor] if newest else []
    if floors:
        about.append(f"noise floor (A against A) {percent(min(floors))} to {percent(max(floors))}")
    if about:
        lines += [(Span(f" {part}", "muted"),) for part in wrapped(" · ".join(about), width - 1)]
    return lines


# Afterwards


def _result(state: AbState, width: int, now: float) -> list[Line]:
    lines: list[Line] = []
    if state.failed:
        it = state.failed
        lines += _text(it.what, "error", width)
        lines += _text(it.why, "text", width)
        lines += _text(it.do or _way_back(state), "warning", width)
        lines.append(())
    if not (state.judged or state.failed):
        lines += _text("Nothing was measured.", "muted", width)
    for judged in state.judged:
        lines += _text(judged.sentence, "title", width)
    lines += _standing(state, width, now)
    for judged in state.judged:
        lines += _judged(state, judged, width)
    return lines


def _way_back(state: AbState) -> str:
    """How to get back what ran, where the comparison died and could not say."""
    if state.planned is None or not state.planned.file or state.began_at is None:
        return "Nothing was stopped"
    return (
        f"What ran before may not be running. `slotdeck up {state.planned.file}` starts it: "
        f"{', '.join(state.planned.stops)}"
    )


def _judged(state: AbState, judged: Judged, width: int) -> list[Line]:
    lines: list[Line] = []
    several = state.planned is not None and len(state.planned.comparisons) > 1
    names = state.planned.comparisons[judged.comparison - 1] if state.planned else ("A", "B")
    if several:
        lines += [(), *_text(f"A: {names[0]}, B: {names[1]}", "accent", width)]
    lines += verdict_tables(judged)
    parts = [f"{judged.pairs - judged.void} of {judged.pairs} pairs are valid"]
    if judged.stop:
        parts.append(judged.stop)
    if judged.noise_floor is not None:
        parts.append(f"A against itself came out {percent(judged.noise_floor)} apart at most")
    lines += _text("; ".join(parts), "muted", width)
    if judged.saved:
        lines += _text(f"all blocks: {judged.saved}", "muted", width)
    return lines


def _standing(state: AbState, width: int, now: float) -> list[Line]:
    """What is to be decided, or was."""
    if state.ended is not None:
        lines = _text(how_it_stands(state), "good", width)
        for words in state.ended.different:
            lines += _text(f"not exactly as before: {words}", "warning", width)
        return lines
    if state.phase is Phase.SETTLING and state.settling:
        it = state.settling
        names = ", ".join(it.names) or "nothing"
        words = f"keeping {it.kept}: starting {names}" if it.kept else f"rolling back: {names}"
        return _text(f"{words}…", "accent", width)
    if state.phase is Phase.DECIDING and state.deciding and state.planned:
        lines = []
        if state.deciding.winner:
            lines += _text(f"Winner: {state.deciding.why}.", "good", width)
        else:
            lines += _text(f"No winner: {state.deciding.why}.", "text", width)
        keys = "   ".join(f"{at} keeps {arm.name}" for at, arm in enumerate(state.planned.arms, 1))
        lines += _text(keys, "accent", width)
        left = None if state.decide_by is None else max(0.0, state.decide_by - now)
        stopped = ", ".join(state.planned.stops)
        if stopped:
            verb = "is" if len(state.planned.stops) == 1 else "are"
            words = f"{stopped} {verb} still stopped; without an answer it is rolled back in"
            lines += _text(f"{words} {span(left)}", "warning", width)
        return lines
    return []


def how_it_stands(state: AbState) -> str:
    """What runs now that it is over."""
    if state.ended and state.ended.kept:
        return f"{state.ended.kept} is kept, and runs."
    stops = state.planned.stops if state.planned else ()
    if not stops:
        return "Rolled back: nothing runs, as before."
    verb = "runs" if len(stops) == 1 else "run"
    return f"Rolled back: {', '.join(stops)} {verb} again."


def leaving(state: AbState) -> list[str]:
    """What it means to end it now."""
    stops = ", ".join(state.planned.stops) if state.planned else ""
    back = f"What ran before is started again: {stops}." if stops else "Nothing ran before."
    if state.phase is Phase.DECIDING:
        return ["Neither arm is kept.", back]
    if state.newest is None:
        return ["No pair is measured yet.", back]
    return ["What was measured is kept in a file, with the verdict that it has paid for.", back]


def parting(state: AbState) -> str:
    """What stays to be said on the terminal, should the panel close now."""
    if state.phase not in AT_WORK or state.planned is None or not state.planned.stops:
        return ""
    words = (
        f"The comparison is ended; in the background starts again what ran before "
        f"({', '.join(state.planned.stops)}): `slotdeck status` shows it."
    )
    return f"{words} Should it not come back: `slotdeck up {state.planned.file}`"


# Pieces


def percent(share: float) -> str:
    """`1.2 %`."""
    return f"{share * 100:.1f} %"


def _text(words: str, ink: str, width: int) -> list[Line]:
    return [(Span(part, ink),) for part in wrapped(words, width)]
