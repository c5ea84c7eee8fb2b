"""One letter and one colour for each instance, the same in the map and in the table."""

from collections.abc import Iterable
from typing import NamedTuple

COLOURS = 8
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


class Badge(NamedTuple):
    """What stands for an instance on its PUs."""

    letter: str
    colour: int

    @property
    def ink(self) -> str:
        """The ink of its letter."""
        return f"owner:{self.colour}"


def badges(names: Iterable[str]) -> dict[str, Badge]:
    """A letter of the name's own where one is free (so `chat` is c), else the next free one."""
    order = list(names)
    letters: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(order, key=len):  # an instance called "a" is sure of its a
        wishes = [each for each in name if each in LETTERS] + list(LETTERS)
        letter = next((each for each in wishes if each not in taken), "#")
        letters[name] = letter
        taken.add(letter)
    return {name: Badge(letters[name], at % COLOURS) for at, name in enumerate(order)}
