"""The user's settings for the panel: colours, glyphs, mouse and keys, checked as a whole."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from engine.core.errors import ControlError
from engine.core.layout_text.mistakes import Mistakes, nearest
from tui.page_actions import all_actions, together
from tui.present.keys import FIXED, key_name, keys_of, shown

Theme = Literal["dark", "light"]
Colours = Literal["auto", "truecolor", "256", "16", "none"]
LARGEST = 1 << 16


class Looks(Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[panel]`."""

    theme: Theme = "dark"
    colours: Colours = "auto"
    ascii: bool = False
    mouse: bool = True


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """The file as a whole."""

    panel: Looks = Looks()
    keys: dict[str, Any] = {}
    """Actions with a key or several; looked at one by one, so that each mistake has its line."""

    @property
    def keymap(self) -> dict[str, str]:
        """Action ids with Textual's names of their keys."""
        return {
            action: ",".join(key_name(each) or each for each in _listed(keys))
            for action, keys in self.keys.items()
        }


def config_path(environment: Mapping[str, str]) -> Path:
    """`$XDG_CONFIG_HOME/slotdeck/config.toml`, by the XDG base directory specification."""
    return config_folder(environment) / "config.toml"


def config_folder(environment: Mapping[str, str]) -> Path:
    """Settings and the user's own layouts."""
    named = environment.get("XDG_CONFIG_HOME", "")
    home = Path(environment.get("HOME") or Path.home())
    return (Path(named) if named.startswith("/") else home / ".config") / "slotdeck"


def read_settings(path: Path) -> Settings:
    """What the file says; without a file, what is usual. Raises LayoutError, ControlError."""
    try:
        with path.open("rb") as opened:
            data = opened.read(LARGEST + 1)
        text = data.decode()
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ControlError(
            what=f"{path} cannot be read", why=why or str(error), do="Correct or remove it"
        ) from None
    if len(data) > LARGEST:
        raise ControlError(
            what=f"{path} is not a settings file",
            why="it is larger than 64 KiB",
            do="Correct or remove it",
        )
    return parse_settings(text, name=str(path))


def parse_settings(text: str, *, name: str) -> Settings:
    """Raises LayoutError that names file and line, and the nearest right word."""
    mistakes = Mistakes(name, text)
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise mistakes.not_toml(error) from None
    try:
        settings = msgspec.convert(document, Settings)
    except msgspec.ValidationError as error:
        raise mistakes.of_shape(document, error, Settings) from None
    _check_keys(settings, mistakes)
    return settings


def _check_keys(settings: Settings, mistakes: Mistakes) -> None:
    actions = all_actions()
    for action, keys in settings.keys.items():
        path = ("keys", action)
        if action not in actions:
            why = f"{action!r} is not an action of the panel"
            do = f"{nearest(action, actions)}There are: {', '.join(sorted(actions))}"
            raise mistakes.at(path, why, do)
        if not isinstance(keys, str) and not (
            isinstance(keys, list) and all(isinstance(key, str) for key in keys)
        ):
            why = f"the key of {action} must be text in quotes, or a list of such"
            raise mistakes.at(path, why, f'Write {action} = "{_default(action)}"')
        if not keys:
            raise mistakes.at(
                path, f"{action} has no key", f'Write {action} = "{_default(action)}"'
            )
        for key in _listed(keys):
            name = key_name(key)
            if name is None:
                raise mistakes.at(
                    path,
                    f"{key!r} is not a key",
                    "Write a character, or a name such as ctrl+d, f5, space, delete",
                )
            if name in FIXED:
                why = f"{key!r} moves, chooses or leaves wherever one is in the panel"
                raise mistakes.at(path, why, f"Give {action} another key")
    for ids in together():
        _check_together(ids, settings, mistakes)


def _check_together(ids: tuple[str, ...], settings: Settings, mistakes: Mistakes) -> None:
    """No key twice on one screen."""
    holder: dict[str, str] = {}
    usual = {each: action.key for each, action in all_actions().items()}
    # Those that the file says come last, so that it is their line that is told.
    said = list(settings.keys)
    for action in sorted(ids, key=lambda each: said.index(each) if each in said else -1):
        for key in settings.keymap.get(action, usual[action]).split(","):
            other = holder.setdefault(key, action)
            if other != action and (action in said or other in said):
                why = "" if other in said else ", as nothing else is said"
                raise mistakes.at(
                    ("keys", action),
                    f"{shown(key)} would be the key of {action}, and it is that of {other}{why}",
                    f'Give one of them another key, e.g. {other} = "…" under [keys]',
                )


def _listed(keys: str | list[str]) -> list[str]:
    return [keys] if isinstance(keys, str) else keys


def _default(action: str) -> str:
    return keys_of(action, all_actions()[action].key, {})[0]
