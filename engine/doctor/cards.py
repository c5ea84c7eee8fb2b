"""One check over all cards: the worst state, each card's words, and the evidence of each."""

from collections.abc import Iterable
from dataclasses import dataclass

from engine.core.checks import GRAVEST_FIRST, Check, Evidence, State
from engine.core.cpuset import CpuSet
from engine.core.topology import Gpu


@dataclass(frozen=True, slots=True)
class Finding:
    """Of one card."""

    gpu: Gpu
    state: State
    words: str
    evidence: tuple[Evidence, ...] = ()
    why: str = ""
    do: str = ""
    undo: str = ""
    needs: tuple[str, ...] = ()


def folder(gpu: Gpu) -> str:
    """A card's place under the root."""
    return f"sys/bus/pci/devices/{gpu.pci}"


def together(name: str, findings: Iterable[Finding]) -> Check | None:
    """Cards of which the same is to be said share one sentence; None where there is no card."""
    every = sorted(findings, key=lambda one: GRAVEST_FIRST.index(one.state))
    if not every:
        return None
    worst = every[0].state
    # Of cards in order nothing is said beside one that is not.
    told = [one for one in every if one.state != "ok"] or every
    by_words: dict[str, list[int]] = {}
    for one in told:
        by_words.setdefault(one.words, []).append(one.gpu.index)
    found = "; ".join(f"GPU {CpuSet(cards)}: {words}" for words, cards in by_words.items())
    grave = [one for one in told if one.state == worst]
    return Check(
        name,
        worst,
        found,
        tuple(dict.fromkeys(line for one in told for line in one.evidence)),
        _joined(one.why for one in grave),
        _joined(one.do for one in grave),
        _joined(one.undo for one in grave),
        tuple(dict.fromkeys(need for one in grave for need in one.needs)),
    )


def _joined(words: Iterable[str]) -> str | None:
    return "; ".join(dict.fromkeys(word for word in words if word)) or None
