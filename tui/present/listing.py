"""Which instances are listed, and in which order."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from engine.core.status import InstanceStatus
from tui.present.instance_row import ALL_COLUMNS


@dataclass(frozen=True, slots=True)
class Listing:
    """A filter and an order; empty, all are listed as the service has them."""

    words: str = ""
    sorted_by: str = ""
    descending: bool = False

    def of(self, instances: Iterable[InstanceStatus]) -> tuple[InstanceStatus, ...]:
        """What is listed of them."""
        kept = [each for each in instances if matches(_said_of(each), self.words)]
        column = next((each for each in ALL_COLUMNS if each.id == self.sorted_by), None)
        if column is None:
            return tuple(reversed(kept) if self.descending else kept)
        column_order = column.order
        if column_order is None:
            kept.sort(key=lambda each: natural(column.cell(each)), reverse=self.descending)
            return tuple(kept)
        order = {each.name: column_order(each) for each in kept}
        unknown = [each for each in kept if order[each.name] is None]
        known = [each for each in kept if order[each.name] is not None]
        known.sort(key=lambda each: order[each.name] or 0.0, reverse=self.descending)
        return (*known, *unknown)


def matches(text: str, words: str) -> bool:
    """Whether each word occurs in it, whatever the case; `!word` asks that it does not."""
    text = text.casefold()
    for word in words.casefold().split():
        if word.startswith("!") and len(word) > 1:
            if word[1:] in text:
                return False
        elif word not in text:
            return False
    return True


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """`a2` before `a10`."""
    return tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part.casefold())
        for part in re.split(r"(\d+)", text)
        if part
    )


def _said_of(each: InstanceStatus) -> str:
    parts = (each.name, each.engine, each.model, each.slot, each.state.value, each.why, each.pus)
    return " ".join((*parts, str(each.port or "")))
