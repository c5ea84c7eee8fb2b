"""The pen writes the same screen as Rich does, in fewer bytes."""

import pyte
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from tui.pen import Pen, codes_of

COLOURS = st.sampled_from(
    ["", "red", "#7aa2f7", "#14161f", "color(201)", "bright_blue", "default"]
)
ATTRIBUTES = st.sampled_from(["", "bold", "italic", "underline", "reverse", "bold italic"])


@st.composite
def styles(draw: st.DrawFn) -> Style | None:
    words = [draw(ATTRIBUTES), draw(COLOURS)]
    if ground := draw(COLOURS):
        words += ["on", ground]
    text = " ".join(word for word in words if word)
    return Style.parse(text) if text else draw(st.sampled_from([None, Style()]))


SEGMENTS = st.lists(
    st.builds(Segment, st.text("ab ▁█", min_size=0, max_size=4), styles()), max_size=12
)
PLACED = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5), SEGMENTS), max_size=6)
SYSTEMS = st.sampled_from([ColorSystem.STANDARD, ColorSystem.EIGHT_BIT, ColorSystem.TRUECOLOR])


def shown(written: str) -> list[list[object]]:
    screen = pyte.Screen(80, 8)
    pyte.Stream(screen).feed(written)
    return [[screen.buffer[y][x] for x in range(80)] for y in range(8)]


@settings(max_examples=60)
@given(PLACED, SYSTEMS)
def test_the_same_screen_as_with_all_codes(
    placed: list[tuple[int, int, list[Segment]]], colours: ColorSystem
) -> None:
    pen, plain = Pen(colours), ""
    for x, y, segments in placed:
        pen.move(x, y)
        pen.write(segments)
        plain += f"\x1b[{y + 1};{x + 1}H"
        for text, style, _ in segments:
            plain += Strip.render_style(style, text, colours) if style and text else text
    assert shown(pen.text()) == shown(plain)
    assert len(pen.text()) <= len(plain) + len("\x1b[0m")


def test_only_what_differs_is_written() -> None:
    pen = Pen(ColorSystem.TRUECOLOR)
    pen.move(0, 0)
    red, green = Style.parse("#ff0000 on #000001"), Style.parse("#00ff00 on #000001")
    pen.write([Segment("a", red), Segment("b", red), Segment("c", green), Segment("d")])
    assert pen.text() == ("\x1b[1;1H\x1b[38;2;255;0;0;48;2;0;0;1mab\x1b[38;2;0;255;0mc\x1b[0md")


def test_a_link_is_kept_whole() -> None:
    pen = Pen(ColorSystem.TRUECOLOR)
    pen.write([Segment("a", Style.parse("red")), Segment("b", Style(link="https://x.example"))])
    assert "https://x.example" in pen.text()
    assert pen.text().endswith("\x1b]8;;\x1b\\")


def test_codes_are_taken_apart() -> None:
    style = Style.parse("bold underline color(201) on #010203")
    assert codes_of(style, ColorSystem.TRUECOLOR) == ("1;4", "38;5;201", "48;2;1;2;3")
    assert codes_of(Style.parse("default on default"), ColorSystem.TRUECOLOR) == ("", "", "")
    assert codes_of(Style(), ColorSystem.TRUECOLOR) == ("", "", "")
