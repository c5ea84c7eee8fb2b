"""Untrusted text never reaches the terminal as a command."""

import pytest
from rich.cells import cell_len

from tui.present.text import clean, clean_lines, fit, wrapped


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]52;c;c2VjcmV0\x1b\\after", "after"),
        ("\x1bPq#0;2\x1b\\after", "after"),
        ("\x9b31mc1", "c1"),
        ("a\x00b\x08c\x7fd", "abcd"),
        ("one\ntwo\rthree\tfour", "one two three four"),
        ("gpj\u202eexe", "gpjexe"),
        ("\ufeffmark", "mark"),
        ("\x1b[", ""),
        ("\x1b", ""),
        ("\x1b[?1049h\x1b[?1003h", ""),
    ],
)
def test_control_sequences_are_taken_out(raw: str, safe: str) -> None:
    assert clean(raw) == safe


def test_a_progress_bar_shows_its_last_form() -> None:
    assert clean_lines("10 %\r50 %\r100 %\nready\n") == "100 %\nready\n"
    assert clean_lines("windows\r\nlines\r\n") == "windows\nlines\n"
    assert clean_lines("\x1b[2Jwiped\x1b[H") == "wiped"


@pytest.mark.parametrize(
    "text", ["", "short", "a much longer text", "模型模型模型模型", "e\u0301a"]
)
@pytest.mark.parametrize("width", [0, 1, 2, 5, 12, 40])
def test_fitted_text_has_exactly_its_cells(text: str, width: int) -> None:
    assert cell_len(fit(text, width)) == width
    assert cell_len(fit(text, width, right=True)) == width


def test_long_words_are_broken() -> None:
    assert all(len(line) <= 20 for line in wrapped("x" * 90 + " y", 20))
    assert wrapped("", 20) == ("",)
