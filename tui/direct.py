"""Writes cells of one widget straight to the terminal, past Textual's compositor.

The map changes many cells a second. Through the compositor each costs a strip of its row, cut at
every other widget's edge; what lies open to the eye needs none of that. Where anything may lie
upon the widget, or colours are filtered, the usual way is taken. Textual is pinned exactly.
"""

from collections.abc import Callable, Iterable, Sequence

from rich.color import ColorSystem
from rich.control import Control
from textual.geometry import Region
from textual.widget import Widget

from tui.pen import Codes, Pen
from tui.present.ink import Span, has_ground

Run = tuple[int, int, Sequence[Span]]
"""Column and row on the screen, and the cells from there."""


def lies_open(widget: Widget) -> bool:
    """Whether what the widget shows is on the screen just so, with nothing upon it."""
    app, screen = widget.app, widget.screen
    if app.is_headless or app.is_inline or app._batch_count or app.get_line_filters():
        return False
    if app._driver is None or not app._running or screen is not app.screen:
        return False
    if screen._layout_required or screen._scroll_required or widget._layout_required:
        return False
    region = widget.content_region
    for other, (where, clip) in screen._compositor.visible_widgets.items():
        if other is widget:
            return clip.contains_region(where) and where.contains_region(region)
        if where.overlaps(region):
            return False
    return False


def write_cells(
    widget: Widget, runs: Iterable[Run], codes: Callable[[str, str, ColorSystem], Codes]
) -> None:
    """Write them now; what Textual keeps of these rows for later is dropped."""
    app, driver = widget.app, widget.app._driver
    if driver is None:
        return
    colours = app.console._color_system or ColorSystem.TRUECOLOR
    pen, corner, stale = Pen(colours), widget.region, []
    for x, y, cells in runs:
        pen.move(x, y)
        stale.append(Region(x - corner.x, y - corner.y, len(cells), 1))
        text, ink, glow = "", "", ""
        for char, cell_ink, cell_glow in cells:
            if cell_ink != ink or cell_glow != glow:
                # A blank is the same in any ink that colours no ground.
                unseen = char == " " and not has_ground(cell_ink) and not has_ground(ink)
                if cell_glow != glow or not unseen:
                    if text:
                        pen.put(text, codes(ink, glow, colours))
                    text, ink, glow = "", cell_ink, cell_glow
            text += char
        pen.put(text, codes(ink, glow, colours))
    widget._styles_cache.set_dirty(*stale)
    x, y = widget.screen.outer_size.clamp_offset(app.cursor_position)
    app._begin_update()
    try:
        driver.write(pen.text() + Control.move_to(x, y).segment.text)
    finally:
        app._end_update()
    driver.flush()
