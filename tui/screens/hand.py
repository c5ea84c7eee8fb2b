"""What takes a new instance out of its palette: the board below."""

from typing import Protocol

from textual.events import MouseEvent

from engine.control import HeldWish


class Hand(Protocol):
    """Carries it on with the mouse."""

    def pull_out(self, draft: HeldWish, event: MouseEvent) -> None:
        """It hangs on the pointer now, whose button is down."""
        ...

    def follow(self, event: MouseEvent) -> None:
        """A move, or the release, that came before the palette was gone."""
        ...
