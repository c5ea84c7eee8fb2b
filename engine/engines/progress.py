"""What an install says while it works, whoever shows it."""

from typing import Protocol


class Progress(Protocol):
    """Steps one after the other; `now` may be called often and be shown or not."""

    def begin(self, step: str) -> None:
        """A step has begun."""

    def now(self, detail: str) -> None:
        """How far it is."""

    def end(self, detail: str) -> None:
        """It has ended well."""
