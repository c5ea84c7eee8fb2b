"""Layouts on cards worth proposing: a replica on each card, tensor parallel only to fit.

The rule: the smallest lawful split that fits (a power of two that divides the heads), then as many
replicas of it as there are cards. A pair for a model that fits one card is proposed for latency
alone, beside the figures that say when it loses.
"""

from collections.abc import Sequence

import msgspec

from engine.core.advising.facts import (
    MANY_CARDS,
    NO_EXCHANGE,
    REPLICAS_SCALE,
    pair_words,
)
from engine.core.advising.trial import Trial
from engine.core.advising.values import Candidate, EngineFacts, Try
from engine.core.layout import Instance
from engine.core.placing.memory_room import gib
from engine.core.strangers import on
from engine.core.topology import Gpu

_LOW_BIT = ("fp8", "sym_int4")
_MANY = 4
"""Ranks from which on the published warning is told."""


def cards_to_use(trial: Trial) -> list[Gpu]:
    """Cards that compute and that nobody else holds."""
    cards = [gpu for gpu in trial.machine.gpus if gpu.computes]
    return [gpu for gpu in cards if not on(trial.held.strangers, gpus=[gpu.index])]


def offer_on_gpus(trial: Trial, engine: EngineFacts) -> None:
    """Offer the layouts of an engine on the free cards."""
    cards = cards_to_use(trial)
    if cards:
        _Gpus(trial, engine, cards).offer()


class _Gpus:
    def __init__(self, trial: Trial, engine: EngineFacts, cards: Sequence[Gpu]) -> None:
        self._trial, self._engine, self._cards = trial, engine, cards
        self._rooms = sorted(
            {
                int(gpu.memory_bytes * engine.traits.memory_share)
                for gpu in cards
                if gpu.memory_bytes is not None
            }
        )
        all_cards = [gpu for gpu in trial.machine.gpus if gpu.computes]
        self._each = len(cards) == len(all_cards)
        splits = trial.needs(self._wish("none", 1)).splits
        self._splits = [
            split
            for power in range(11)
            if (split := 1 << power) <= len(cards) and (splits is None or split in splits)
        ]
        if not engine.traits.tensor_parallel:
            self._splits = self._splits[:1]

    def offer(self) -> None:
        forms = self._forms()
        if not self._rooms or self._trial.needs(self._wish(forms[0], 1)).per_device_bytes is None:
            for split in self._splits:
                self._offer(forms[0], split, why=("take it only if fewer cards do not hold it",))
            return
        widths: dict[str, list[int]] = {}
        for form in forms:
            widths[form] = self._fewest(form)
            narrowest = min((one for done in widths.values() for one in done), default=None)
            mine = [one for one in widths[form] if form in forms[:1] or one == narrowest]
            if (
                form != forms[0]
                and widths[forms[0]]
                and min(widths[forms[0]]) <= min(mine, default=self._splits[-1])
            ):
                continue
            if form == forms[0] and 1 not in mine:
                self._offer(form, 1)  # Tells by how much one card is too small.
            if not mine:
                self._offer(form, self._splits[-1])
            for split in mine:
                self._offer(form, split)
        first = forms[0]
        if 1 in widths[first]:
            if self._trial.ask.goal == "latency" and 2 in self._splits:
                self._offer_pair(first)
            for form in ("none", "fp8"):
                if form != first and form in forms and 1 in self._fewest(form):
                    self._offer(form, 1, quiet=True)

    def _fewest(self, form: str) -> list[int]:
        """The fewest cards that hold it, for each size of card that there is."""
        found: set[int] = set()
        for room in self._rooms:
            for split in self._splits:
                each = self._trial.needs(self._wish(form, split), split).per_device_bytes
                if each is not None and each <= room:
                    found.add(split)
                    break
        return sorted(found)

    def _forms(self) -> list[str]:
        """The one that the published rule is for first: FP8."""
        plain = self._trial.needs(self._wish("none", 1))
        low = [form for form in _LOW_BIT if form in self._engine.forms]
        if self._trial.is_packed:
            low = []
        each = plain.per_device_bytes
        if each is not None and self._rooms and each * 4 <= self._rooms[0]:
            return ["none", *low[:1]]
        return [*low, "none"]

    def _wish(self, form: str, split: int) -> Instance:
        """As many replicas of so many cards as there are cards for."""
        many = len(self._cards) // split
        if split == 1 and self._each:
            slot = "each gpu" if many > 1 else f"gpu:{self._cards[0].index}"
            return self._trial.wish(self._engine.name, slot, form=form)
        wish = self._trial.wish(self._engine.name, "auto", form=form)
        return msgspec.structs.replace(wish, gpus=split, count=many if many > 1 else None)

    def _offer(
        self, form: str, split: int, *, why: tuple[str, ...] = (), quiet: bool = False
    ) -> bool:
        reasons: tuple[str, ...]
        warnings: tuple[str, ...] = ()
        if split == 1:
            title = "One replica per card" if len(self._cards) > 1 else "One instance on the card"
            reasons = ("there is one free card",)
            if len(self._cards) > 1:
                latency = self._trial.ask.goal == "latency"
                reasons = (NO_EXCHANGE if latency else REPLICAS_SCALE,)
        else:
            title = f"Tensor parallel over {split} cards (TP{split})"
            reasons = (*self._only_to_fit(form, split), *why)
            warnings = (MANY_CARDS,) if split >= _MANY else ()
            if left := len(self._cards) % split:
                warnings += (f"{left} of {len(self._cards)} cards stay free",)
        words = self._trial.words(form)
        tried = Try((self._wish(form, split),), f", {words}", self._saving(form))
        return self._trial.offer(Candidate(title, (tried,), reasons, warnings, quiet))

    def _offer_pair(self, form: str) -> None:
        title = "Two cards for each replica (TP2)"
        tried = Try((self._wish(form, 2),), f", {self._trial.words(form)}")
        reasons = (
            *pair_words(),
            "measure both (A/B) before you choose it: other cards and models have other figures",
        )
        self._trial.offer(Candidate(title, (tried,), reasons, quiet=True))

    def _only_to_fit(self, form: str, split: int) -> tuple[str, ...]:
        before = self._splits.index(split) - 1
        if before < 0 or not self._rooms:
            return ()
        fewer = self._splits[before]
        each = self._trial.needs(self._wish(form, fewer), fewer).per_device_bytes
        if each is None:
            return ()
        on_each = "one card" if fewer == 1 else f"each of {fewer}"
        return (
            f"only to fit: {on_each} would have to hold {gib(each)} of the "
            f"{gib(self._rooms[-1])} that may be filled (computed)",
        )

    def _saving(self, form: str) -> tuple[str, ...]:
        if form == "none":
            return ()
        plain = self._trial.needs(self._wish("none", 1)).weights_bytes
        packed = self._trial.needs(self._wish(form, 1)).weights_bytes
        if plain is None or packed is None:
            return ()
        return (f"{self._trial.words(form)}: {gib(packed)} instead of {gib(plain)} (computed)",)
