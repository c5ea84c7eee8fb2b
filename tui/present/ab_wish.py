"""What is to be compared, and under which load: the words of `slotdeck ab` for it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tui.view import View

STREAMS = (1, 4, 16, 64)
PAIRS = (6, 10, 20)
MINUTES = (5, 15, 60, 240)


@dataclass(frozen=True, slots=True)
class AbWish:
    """Two layouts, or arms that are made from one instance."""

    title: str
    words: tuple[str, ...]
    streams: int = STREAMS[0]
    pairs: int = PAIRS[1]
    minutes: int = MINUTES[1]

    @property
    def command(self) -> tuple[str, ...]:
        """All that stands after `slotdeck ab`."""
        load = ("--concurrency", str(self.streams), "--pairs", str(self.pairs))
        return (*self.words, *load, "--max-time", str(60 * self.minutes))

    def other(self, knob: str) -> "AbWish":
        """The same with the next choice of streams, pairs or minutes."""
        match knob:
            case "streams":
                return replace(self, streams=_next(STREAMS, self.streams))
            case "pairs":
                return replace(self, pairs=_next(PAIRS, self.pairs))
            case _:
                return replace(self, minutes=_next(MINUTES, self.minutes))


def _next(choices: Sequence[int], now: int) -> int:
    return choices[(choices.index(now) + 1) % len(choices)]


def of_layouts(a: Path, b: Path) -> AbWish:
    """Two files."""
    return AbWish(f"{a.stem} or {b.stem}", (str(a), str(b)))


def of_move(name: str, slot: str) -> AbWish:
    """Where it is, and on another slot."""
    return AbWish(f"{name}: here or {slot}", ("--move", name, slot))


def of_instance(view: View) -> AbWish | None:
    """The selected one: on GPUs one card or two, on CPUs one instance or two halves."""
    each = view.instance
    if each is None:
        return None
    if each.gpus:
        return AbWish(f"{each.name}: one card or two", ("--single-dual", each.name))
    return AbWish(f"{each.name}: one or two halves", ("--split", each.name))
