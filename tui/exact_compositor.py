"""Renders just what is to be painted again: Textual 8.2.8 renders all that lies between."""

from collections.abc import Iterable

from textual._compositor import ChopsUpdate, Compositor
from textual.geometry import Region
from textual.strip import Strip


class ExactCompositor(Compositor):
    """The same, where of a screen only a header and a table's row have changed, say.

    Textual is pinned exactly, as this knows how it gathers the pieces of a line.
    """

    def __init__(self) -> None:
        super().__init__()
        self._wanted: tuple[Region, ...] = ()

    def render_partial_update(self) -> ChopsUpdate | None:
        self._wanted = tuple(self._dirty_regions)
        try:
            return super().render_partial_update()
        finally:
            self._wanted = ()

    def _get_renders(
        self, crop: Region | None = None
    ) -> Iterable[tuple[Region, Region, list[Strip]]]:
        if not self._wanted:
            yield from super()._get_renders(crop)
            return
        for widget, (region, clip) in self.visible_widgets.items():
            seen = region.intersection(clip)
            parts = [part for one in self._wanted if (part := one.intersection(seen))]
            if not parts:
                continue
            top = min(part.y for part in parts)
            lines = Region(seen.x, top, seen.width, max(part.bottom for part in parts) - top)
            yield region, lines, widget.render_lines(lines.translate(-region.offset))
