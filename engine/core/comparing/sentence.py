"""What a person would say of a comparison, and the answer length at which two arms are even."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

from engine.core.comparing.values import Arm, Better, BreakEven, Comparison, Verdict

_MAIN = ("ttft_ms", "tpot_ms")
_RATE = "output_tokens_per_s"
_COUNTS = frozenset({"both", "several", "many", "all", "two", "three", "four", "five", "six"}) | {
    *("seven", "eight", "nine", "ten", "eleven", "twelve", "sixteen")
}


def break_even(ttft_a: float, tpot_a: float, ttft_b: float, tpot_b: float) -> BreakEven | None:
    """None unless one arm answers sooner and the other writes faster.

    An answer of n tokens ends after ttft + (n - 1) tpot. The faster writer ends first where
    (n - 1) > x, x = (difference of TTFT) / (difference of TPOT), so from the next whole number
    above x + 1 on: for answers over floor(x) + 1 tokens. At that number itself the other one is
    ahead, or level where x is whole. Fractions of the decimals as printed, because with 30.3 and
    10.1 a binary division may land beside the whole number.
    """
    first_a, each_a, first_b, each_b = (
        Fraction(repr(float(value))) for value in (ttft_a, tpot_a, ttft_b, tpot_b)
    )
    later, slower = first_a - first_b, each_b - each_a
    if later * slower <= 0:
        return None
    return BreakEven(tokens=later // slower + 1, longer="a" if slower > 0 else "b")


def sentence(
    a: Arm,
    b: Arm,
    rows: Sequence[Comparison],
    even: BreakEven | None,
    *,
    why: str | None = None,
    paired: bool = True,
) -> str:
    """One or two sentences; only differences that have a verdict are spoken of as differences.

    `why` is the reason for there being no verdict at all, where there is none.
    """
    by_name = {row.name: row for row in rows}
    parts = [_headline(a, b, by_name, even, why)]
    rate = by_name.get(_RATE)
    if rate is not None and _adds(rate, [by_name[name] for name in _MAIN if name in by_name]):
        verb = "they give" if is_plural(b) else "it gives"
        parts.append(f"Over all streams {verb} {_more_tokens(rate)}.")
    if not paired:
        parts.append("The runs were measured apart, which is weaker than pairs.")
    return " ".join(parts)


def _headline(
    a: Arm,
    b: Arm,
    by_name: Mapping[str, Comparison],
    even: BreakEven | None,
    why: str | None,
) -> str:
    main = [by_name[name] for name in _MAIN if name in by_name and _judged(by_name[name])]
    if not main or not any(row.differs for row in main):
        others = [row for name, row in by_name.items() if name not in _MAIN and _judged(row)]
        rate = by_name.get(_RATE)
        if rate is not None and rate.differs:
            main = [*main, rate]
        elif not main and others:
            main = [next((row for row in others if row.differs), others[0])]
    if not main:
        reason = "" if why is None else f" ({why})"
        return f"Not enough to tell {a.name} from {b.name}{reason}."
    plural = is_plural(b)
    said = [_clause(row, plural=plural) for row in main if row.differs]
    same = [row for row in main if not row.differs]
    if not said:
        seen = " and ".join(
            f"one of {_percent(row.smallest_detectable or 0)} in {row.metric.words}"
            for row in same
        )
        none = f"No difference was seen between {a.name} and {b.name}"
        return f"{none}; {seen} would most likely have been."
    spoken = f"{_capital(b.name)} {' and '.join(said)}"
    if same:
        nouns = " and ".join(row.metric.words for row in same)
        return f"{spoken}; in {nouns} no difference was seen."
    if even is None or len(said) < len(_MAIN):
        return f"{spoken}."
    winner = a if even.longer == "a" else b
    wins = "win" if is_plural(winner) else "wins"
    length = "1 token" if even.tokens == 1 else f"{even.tokens:,} tokens"
    return f"{spoken}; for answers over {length} {winner.name} {wins}."


def _judged(row: Comparison) -> bool:
    return row.verdict is not Verdict.NOT_ENOUGH


def _adds(rate: Comparison, main: Sequence[Comparison]) -> bool:
    """Tokens/s of all streams say more than the speed of one, where they do not go with it."""
    if not rate.differs or not any(row.differs for row in main):
        return False
    return not any(row.name == "tpot_ms" and row.verdict is rate.verdict for row in main)


def _clause(row: Comparison, *, plural: bool) -> str:
    """Verb and all, such as "answers 31 % sooner"."""
    ratio = row.ratio or 1.0
    s = "" if plural else "s"
    factor = max(ratio, 1 / ratio)
    much = _percent(factor - 1)
    match row.name:
        case "ttft_ms" if ratio < 1:
            return f"answer{s} {_percent(1 - ratio)} sooner"
        case "ttft_ms" if factor < 2:
            return f"answer{s} {much} later"
        case "ttft_ms":
            return f"take{s} {_times(factor)} as long to answer"
        case "tpot_ms" if factor < 2:
            return f"write{s} {much} {'faster' if ratio < 1 else 'slower'}"
        case "tpot_ms":
            return f"write{s} {_times(factor)} as {'fast' if ratio < 1 else 'slowly'}"
        case name if name == _RATE:
            return f"give{s} {_more_tokens(row)}"
        case _ if row.metric.better is Better.LOWER:
            change = f"{_percent(1 - ratio)} shorter" if ratio < 1 else f"{much} longer"
            return f"make{s} {row.metric.words} {change}"
        case _:
            change = f"{_percent(1 - ratio)} fewer" if ratio < 1 else f"{much} more"
            return f"give{s} {change} {row.metric.words}"


def _more_tokens(row: Comparison) -> str:
    ratio = row.ratio or 1.0
    if ratio < 1:
        return f"{_percent(1 - ratio)} fewer tokens/s"
    if ratio < 2:
        return f"{_percent(ratio - 1)} more tokens/s"
    return f"{_times(ratio)} the tokens/s"


def _times(factor: float) -> str:
    return f"{factor:.1f} times" if factor < 10 else f"{factor:.0f} times"


def _percent(share: float) -> str:
    percent = share * 100
    return f"{percent:.0f} %" if percent >= 9.95 else f"{percent:.1f} %"


def is_plural(arm: Arm) -> bool:
    """As the caller says, else by the first word: "two cards", "4 instances"."""
    if arm.plural is not None:
        return arm.plural
    words = arm.name.split()
    if len(words) < 2:
        return False
    first = words[0].lower()
    return first in _COUNTS or (first.isdecimal() and int(first) != 1)


def _capital(name: str) -> str:
    """At the start of a sentence; names of files and instances stay as they are."""
    first = name.split(maxsplit=1)[0] if name.split() else ""
    return name[:1].upper() + name[1:] if len(name) > len(first) and first.isalpha() else name
