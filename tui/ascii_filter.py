"""What Textual itself draws with blocks, such as the ends of its scroll bars, in ASCII."""

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

IN_ASCII = str.maketrans(
    {**dict.fromkeys("▁▂▃▄▅▆▇█", " "), **dict.fromkeys("▏▎▍▌▋▊▉▐", "|"), "…": "~"}
)


class AsciiFilter(LineFilter):
    """Lines of our own have none of these already."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            Segment(text if text.isascii() else text.translate(IN_ASCII), style, control)
            for text, style, control in segments
        ]
