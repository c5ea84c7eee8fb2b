"""What the panel takes a terminal for, and the colours that it then has."""

import pytest
from rich.color import Color
from rich.style import Style

from tui.present.glyphs import ASCII, UNICODE
from tui.terminal import terminal_kind
from tui.widgets.palette import GLOWS, INKS, STATES, Palette
from tui.widgets.schemes import PLAIN, SCHEMES, SIXTEEN, Scheme, scheme_for, turned


@pytest.mark.parametrize(
    ("environment", "colours"),
    [
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "truecolor"),
        ({"TERM": "xterm", "COLORTERM": "24bit"}, "truecolor"),
        ({"TERM": "xterm-direct"}, "truecolor"),
        ({"TERM": "xterm-256color"}, "256"),
        ({"TERM": "tmux-256color"}, "256"),
        ({"TERM": "xterm-kitty"}, "256"),
        ({"TERM": "xterm"}, "16"),
        ({"TERM": "linux"}, "16"),
        ({"TERM": "screen"}, "16"),
        ({}, "16"),
        ({"TERM": "vt100"}, "none"),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor", "NO_COLOR": "1"}, "none"),
        ({"TERM": "xterm-256color", "NO_COLOR": ""}, "256"),
    ],
)
def test_colours(environment: dict[str, str], colours: str) -> None:
    assert terminal_kind(environment).colours == colours
    assert terminal_kind(environment, asked="256").colours == "256"


def test_where_a_clipboard_is_to_be_had() -> None:
    assert terminal_kind({"TERM": "xterm-256color"}).no_clipboard == ""
    assert "console" in terminal_kind({"TERM": "linux"}).no_clipboard
    assert "screen" in terminal_kind({"TERM": "screen.xterm", "STY": "1.tty"}).no_clipboard
    assert "set-clipboard" in terminal_kind({"TERM": "tmux", "TMUX": "/tmp/x"}).clipboard_note


def test_which_scheme() -> None:
    assert scheme_for("light", "truecolor").name == "light"
    assert scheme_for("dark", "truecolor").name == "dark"
    assert scheme_for("light", "256").theme.dark is False
    assert scheme_for("light", "16").theme.ansi
    assert scheme_for("dark", "none").name == "no colours"
    assert turned(SCHEMES["dark"]) is SCHEMES["light"]
    assert turned(SCHEMES["no colours"]) is None


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda each: each.name)
def test_every_ink_has_a_style_in_every_scheme(scheme: Scheme) -> None:
    palette = Palette(scheme)
    levels = len(UNICODE.levels)
    inks = [*INKS, *(f"state:{state}" for state in STATES), *(f"owner:{at}" for at in range(8))]
    inks += ["owner:3!", *(f"heat:{at}" for at in range(levels)), "heat:7:0"]
    for ink in inks:
        for glow in ("", *GLOWS):
            assert isinstance(palette.style(ink, glow), Style)
    assert len(scheme.heat) == levels == len(ASCII.levels)


@pytest.mark.parametrize("name", ["dark", "light", "dark, 256 colours", "light, 256 colours"])
def test_words_can_be_read_on_their_background(name: str) -> None:
    scheme = SCHEMES[name]
    palette = Palette(scheme)
    background = Style.parse(f"on {scheme.theme.background}")
    for ink in ("text", "number", "name", "muted", "key", "key:danger", "error", "good", "gpu"):
        style = background + palette.style(ink)
        assert contrast(style) > 3.0, ink
    assert contrast(background + palette.style("text")) > 7.0


@pytest.mark.parametrize("name", ["no colours", "16 colours"])
def test_where_colours_are_few_none_is_asked_for_that_is_not_there(name: str) -> None:
    scheme = SCHEMES[name]
    words = " ".join((*scheme.hues.values(), *scheme.heat, *scheme.owners))
    assert "#" not in words
    if name == "no colours":
        assert set(words.split()) <= {"default", "bold", "dim", "reverse", "underline"}
    assert not scheme.halves


def contrast(style: Style) -> float:
    """By WCAG 2: 4.5 is asked for small text, 3 for what is not to be read in a hurry."""
    assert style.color is not None
    assert style.bgcolor is not None
    one, other = (_luminance(*colour.get_truecolor()) for colour in (style.color, style.bgcolor))
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def _luminance(red: int, green: int, blue: int) -> float:
    def linear(value: float) -> float:
        value /= 255
        return value / 12.92 if value <= 0.03928 else float(((value + 0.055) / 1.055) ** 2.4)

    return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)


@pytest.mark.parametrize("scheme", [SIXTEEN, PLAIN], ids=lambda each: each.name)
def test_the_selected_row_stands_out_without_shades(scheme: Scheme) -> None:
    palette = Palette(scheme)
    inks = ("text", "name", "pointer", "good", "state:failed", "owner:1")
    for ink in inks:
        focused, elsewhere = palette.style(ink, "row:focus"), palette.style(ink, "row")
        assert focused.reverse
        assert focused.color == Color.default()  # reversed, a colour would be a block
        assert elsewhere.underline
        assert not palette.style(ink).underline
    chosen = palette.style("owner:1!")
    assert chosen.reverse
    assert (scheme is PLAIN) == (chosen.color == Color.default())
