"""The settings file: checked as a whole, each mistake with its line and the nearest right word."""

from pathlib import Path

import pytest

from engine.core.errors import ControlError, LayoutError
from tui.actions import ACTIONS
from tui.page_actions import PAGES, all_actions
from tui.present.keys import FIXED, key_name, keys_of, shown
from tui.settings import Settings, config_path, parse_settings, read_settings


def test_without_a_file_all_is_as_usual(tmp_path: Path) -> None:
    assert read_settings(tmp_path / "config.toml") == Settings()
    assert Settings().keymap == {}


def test_a_file_with_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        '[panel]\ntheme = "light"\ncolours = "256"\nascii = true\nmouse = false\n'
        '[keys]\nstop = ["z", "f5"]\nhelp = "!"\n'
    )
    settings = read_settings(path)
    assert settings.panel.theme == "light"
    assert settings.panel.colours == "256"
    assert settings.panel.ascii
    assert not settings.panel.mouse
    assert settings.keymap == {"stop": "z,f5", "help": "exclamation_mark"}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[panel]\n\ntheme = "dork"', 3, "Did you mean 'dark'"),
        ('[panel]\ncolors = "16"', 2, "Did you mean 'colours'"),
        ('[panel]\ncolours = "17"', 2, "It may be: 16, 256, auto, none, truecolor"),
        ("[panel]\nascii = 1", 2, "ascii must be true or false"),
        ("[pannel]\nascii = true", 1, "Did you mean 'panel'"),
        ('[keys]\nstpo = "z"', 2, "Did you mean 'stop'"),
        ('[keys]\nstop = "R"', 2, "R would be the key of stop, and it is that of restart"),
        (
            '[keys]\nstop = "z"\nmove = "z"',
            3,
            "z would be the key of move, and it is that of stop",
        ),
        ('[keys]\nfilter = "s"', 2, "that of start"),
        ('[keys]\nstop = "enter"', 2, "Give stop another key"),
        ('[keys]\nstop = "f99"', 2, "'f99' is not a key"),
        ('[keys]\nstop = ["z", "hyper+z"]', 2, "'hyper+z' is not a key"),
        ("[keys]\nstop = 5", 2, 'Write stop = "x"'),
        ("[keys]\nstop = []", 2, 'Write stop = "x"'),
        ("keys = 5", 1, "keys must be a table"),
        ("[keys\n", 1, "is not TOML"),
    ],
)
def test_mistakes_have_their_line_and_a_cure(text: str, line: int, words: str) -> None:
    with pytest.raises(LayoutError) as caught:
        parse_settings(text, name="config.toml")
    assert f"config.toml, line {line} " in caught.value.what
    assert words in str(caught.value)


def test_keys_may_change_places() -> None:
    settings = parse_settings('[keys]\nstop = "R"\nrestart = "x"', name="c")
    assert settings.keymap == {"stop": "R", "restart": "x"}


def test_every_usual_key_can_be_written_and_none_is_twice_on_a_screen() -> None:
    for action in all_actions().values():
        for name in keys_of(action.id, action.key, {}):
            assert key_name(shown(name).replace("^", "ctrl+")) == name or name in FIXED, action
    usual = "\n".join(
        f'{each.id} = "{shown(keys_of(each.id, each.key, {})[0])}"' for each in ACTIONS
    )
    parse_settings(f"[keys]\n{usual}", name="usual")
    for page in PAGES.values():
        keys = [key for each in page.all for key in keys_of(each.id, each.key, {})]
        assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    "written", ["x", "X", "?", "/", "<", "+", "-", "é", "ctrl+d", "f5", "space"]
)
def test_keys_are_shown_as_they_are_written(written: str) -> None:
    name = key_name(written)
    assert name is not None
    assert shown(name) == written.replace("ctrl+", "^")


@pytest.mark.parametrize("written", ["", "xx", "\t", "super+x", "ctrl+", "f0"])
def test_what_is_no_key(written: str) -> None:
    assert key_name(written) is None


def test_where_the_file_is() -> None:
    assert config_path({"XDG_CONFIG_HOME": "/c"}) == Path("/c/slotdeck/config.toml")
    assert config_path({"HOME": "/h"}) == Path("/h/.config/slotdeck/config.toml")
    assert config_path({"HOME": "/h", "XDG_CONFIG_HOME": "relative"}).parent.parent == Path(
        "/h/.config"
    )


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(ControlError, match="cannot be read"):
        read_settings(tmp_path / "config.toml")
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"# caf\xe9\n")
    with pytest.raises(ControlError, match="it is not UTF-8 text"):
        read_settings(latin)
