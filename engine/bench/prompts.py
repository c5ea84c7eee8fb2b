"""Synthetic prompts of about so many tokens, each different from its first word on."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

_TEXT = """
time year people way day man thing woman life child world school state family student group
country problem hand part place case week company system program question work government
number night point home water room mother area money story fact month lot right study book
eye job word business issue side kind head house service friend father power hour game line
end member law car city community name president team minute idea kid body information back
parent face others level office door health person art war history party result change
morning reason research girl guy moment air teacher force education foot boy age policy
music market sense nation plan college interest death course someone experience behind
"""
WORDS = tuple(_TEXT.split())
"""Short and common, so that most tokenizers have one token for each; none comes twice."""
POOL_SLACK = 1009
"""How many different tails there are."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request's question: a text to go on with, or the messages of a chat."""

    text: str = ""
    messages: Sequence[Mapping[str, object]] = ()
    max_tokens: int | None = None
    """Its own length of answer; None is the load's."""

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.messages else "/v1/completions"

    @property
    def content(self) -> dict[str, object]:
        return {"messages": self.messages} if self.messages else {"prompt": self.text}


class PromptSource(Protocol):
    """The same number gives the same prompt, so that all targets are asked the same."""

    def prompt(self, number: int, words: int) -> Prompt: ...

    @property
    def facts(self) -> Mapping[str, object]:
        """What the manifest says of them."""
        ...


class Prompts:
    """The same seed and number make the same prompt.

    Prefix caches answer for equal *beginnings*, so that the number itself, written with words for
    digits and its lowest digit first, begins each prompt: neighbours differ in their first word.
    The tails are cut from one long text, which costs microseconds where drawing thousands of
    words anew would hold up the clock of the other streams.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._digits = list(WORDS)
        random.Random(f"digits {seed}").shuffle(self._digits)
        self._pool: list[str] = []

    facts: Mapping[str, object] = {"kind": "synthetic"}

    def prompt(self, number: int, words: int) -> Prompt:
        return Prompt(self.text(number, words))

    def text(self, number: int, words: int) -> str:
        head = self._number_in_words(number)[:words]
        tail = words - len(head)
        if len(self._pool) < tail + POOL_SLACK:
            # Not from where the last pool ended: a prompt may not depend on those before it.
            draw = random.Random(f"pool {self._seed}")
            self._pool = draw.choices(WORDS, k=2 * tail + POOL_SLACK)
        start = number % POOL_SLACK
        return " ".join(head + self._pool[start : start + tail])

    def _number_in_words(self, number: int) -> list[str]:
        base = len(self._digits)
        words = [self._digits[number % base]]
        while number >= base:
            number //= base
            words.append(self._digits[number % base])
        return words
