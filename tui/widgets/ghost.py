"""What hangs under the pointer while an instance is dragged."""

from textual.content import Content
from textual.geometry import Size
from textual.widgets import Static

from tui.present.text import cell_width


class Ghost(Static):
    """Stands one cell beside the pointer, so that the slot below stays readable."""

    ALLOW_SELECT = False

    def hang(self, text: str, verdict: str, x: int, y: int, screen: Size) -> None:
        """Show it at a pointer position; outside the screen is pulled in."""
        words = f" {text} "
        for each in ("good", "bad", "maybe"):
            self.set_class(each == verdict, f"-{each}")
        width = cell_width(words)
        left = x + 1 if x + 1 + width <= screen.width else x - width
        top = y + 1 if y + 1 < screen.height else y - 1
        self.update(Content(words))
        self.styles.width = width
        self.styles.offset = (
            max(0, min(left, screen.width - width)),
            max(0, min(top, screen.height - 1)),
        )
        self.display = True
