"""The layout files that there are: those that came with slotdeck, and the user's own."""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import LayoutError
from engine.layout_files import read_layout


@dataclass(frozen=True, slots=True)
class FoundLayout:
    """One file, as a list shows it."""

    path: Path
    is_own: bool
    """The user's own, not a shipped one."""
    name: str
    """The layout's own name, or the file's."""
    idea: str
    """The comment that it begins with."""
    text: str
    problem: str = ""
    """Why it cannot be read."""


def shipped_folder() -> Path:
    """Where the layouts are that came with slotdeck: in the wheel, or in the source tree."""
    package = Path(__file__).parent
    inside = package / "_layouts"
    return inside if inside.is_dir() else package.parent / "layouts"


def name_to_save(path: str, layout: str) -> str:
    """What a layout is to be saved as, when it came from that file: shipped ones stay as they
    are, so those, and what came from no file, are given a name among the user's own."""
    if path and Path(path).resolve().parent != shipped_folder().resolve():
        return path
    return Path(path).stem or re.sub(r"[^\w.-]+", "-", layout.lower()).strip("-.") or "layout"


def found_layouts(own: Path | None, others: Iterable[Path] = ()) -> tuple[FoundLayout, ...]:
    """The user's own first, then `others` (files that are open), then the shipped ones."""
    mine = _toml_files(own) if own else []
    mine += [path for path in others if path not in mine and path.is_file()]
    shipped = _toml_files(shipped_folder())
    return (
        *(_found(path, is_own=True) for path in mine if path not in shipped),
        *(_found(path, is_own=False) for path in shipped),
    )


def _toml_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".toml")
    except OSError:
        return []


def _found(path: Path, *, is_own: bool) -> FoundLayout:
    try:
        text = read_layout(str(path)).text
    except LayoutError as error:
        return FoundLayout(path, is_own, path.stem, "", "", error.why)
    try:
        name = tomllib.loads(text).get("name")
        problem = ""
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        name, problem = None, f"it is not TOML: {error}"
    shown = name if isinstance(name, str) else path.stem
    return FoundLayout(path, is_own, shown, _first_comment(text), text, problem)


def _first_comment(text: str) -> str:
    """The lines from the top that begin with `#`, as one."""
    words = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        words.append(line.lstrip("# ").rstrip())
    return " ".join(words)
