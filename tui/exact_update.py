"""Writes just the cells that changed: Textual 8.2.8 starts from the left edge of their widget."""

from rich.console import Console
from rich.control import Control
from textual._compositor import ChopsUpdate


class ExactUpdate(ChopsUpdate):
    """The same update in a fraction of the bytes, which over SSH are what one waits for.

    Textual is pinned exactly, as this knows how it keeps the pieces ("chops") of a line.
    """

    @classmethod
    def of(cls, update: ChopsUpdate) -> "ExactUpdate":
        """The same cells as another update."""
        return cls(update.chops, update.spans, update.chop_ends)

    def render_segments(self, console: Console) -> str:
        written: list[str] = []
        for y, first, last in self.spans:
            for end, (start, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                left, right = max(start, first), min(end, last)
                if strip is None or left >= right:
                    continue
                if (left, right) != (start, end):
                    strip = strip.crop(left - start, right - start)
                written += [Control.move_to(left, y).segment.text, strip.render(console)]
        return "".join(written)
