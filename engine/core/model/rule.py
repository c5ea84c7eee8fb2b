"""The public rule of thumb for 16 GB cards, and what the arithmetic says to it."""

from dataclasses import dataclass

GIB = 1 << 30

_RULE = (
    (7_000_000_000, 9_500_000_000, 1),
    (13_000_000_000, 15_500_000_000, 2),
    (30_000_000_000, 35_000_000_000, 4),
)
"""Parameters from, to, cards: "7B-9B one card, 14B two, 33B four"."""


@dataclass(frozen=True, slots=True)
class CardRule:
    """What the rule says to a model; `cards` None: it does not speak of such a case."""

    cards: int | None
    words: str


def card_rule(parameters: int | None, card_bytes: int, weight_only: str) -> CardRule | None:
    """None when the parameters are not known. The rule was made for FP8 weights on 16 GB."""
    if parameters is None:
        return None
    billions = f"{parameters / 1e9:.1f}B"
    if not 15 * GIB <= card_bytes <= 17 * GIB:
        return CardRule(None, f"the rule of thumb is for 16 GB cards, not {_gib(card_bytes)}")
    cards = next((cards for low, high, cards in _RULE if low <= parameters <= high), None)
    if cards is None:
        return CardRule(None, f"the rule of thumb does not speak of {billions} parameters")
    plural = "s" if cards > 1 else ""
    held = "" if weight_only.startswith("fp8") else ", which holds for FP8 weights"
    return CardRule(
        cards, f"the rule of thumb gives {billions} parameters {cards} 16 GB card{plural}{held}"
    )


def agreement(rule: CardRule, fewest: int | None, *, words: str, card_bytes: int) -> str:
    """The rule and the sum side by side. `fewest` None: no lawful number of cards holds it;
    `words` name the weights' form."""
    if fewest is None:
        return f"{rule.words}; the sum finds no number of {_gib(card_bytes)} cards ({words})"
    plural = "s" if fewest > 1 else ""
    said = f"the sum says {fewest} card{plural} ({words})"
    if rule.cards is None:
        return f"{rule.words}; {said}"
    if rule.cards == fewest:
        return f"{rule.words}; the sum agrees ({words})"
    why = "these weights are larger" if fewest > rule.cards else "these weights are smaller"
    if words.startswith("fp8"):
        why = "the cache asked for is larger" if fewest > rule.cards else "little cache is asked"
    return f"{rule.words}; {said}: {why}"


def _gib(count: int) -> str:
    return f"{count / GIB:.0f} GiB"
