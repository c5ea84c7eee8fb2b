"""Writes just the cells that changed: Textual 8.2.8 starts from the left edge of their widget."""

from rich.color import ColorSystem
from rich.console import Console
from textual._compositor import ChopsUpdate, LayoutUpdate

from tui.pen import Pen


class ExactUpdate(ChopsUpdate):
    """The same update in a fraction of the bytes, which over SSH are what one waits for.

    Textual is pinned exactly, as this knows how it keeps the pieces ("chops") of a line.
    """

    @classmethod
    def of(cls, update: ChopsUpdate) -> "ExactUpdate":
        """The same cells as another update."""
        return cls(update.chops, update.spans, update.chop_ends)

    def render_segments(self, console: Console) -> str:
        pen = _pen(console)
        for y, first, last in self.spans:
            for end, (start, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                left, right = max(start, first), min(end, last)
                if strip is None or left >= right:
                    continue
                if (left, right) != (start, end):
                    strip = strip.crop(left - start, right - start)
                pen.move(left, y)
                pen.write(strip)
        return pen.text()


class ExactLayout(LayoutUpdate):
    """A whole part of the screen, likewise with only the codes that it takes."""

    @classmethod
    def of(cls, update: LayoutUpdate) -> "ExactLayout":
        """The same strips as another update."""
        return cls(update.strips, update.region)

    def render_segments(self, console: Console) -> str:
        pen = _pen(console)
        for y, line in enumerate(self.strips, self.region.y):
            pen.move(self.region.x, y)
            for strip in line:
                pen.write(strip)
        return pen.text()


def _pen(console: Console) -> Pen:
    return Pen(console._color_system or ColorSystem.TRUECOLOR)
