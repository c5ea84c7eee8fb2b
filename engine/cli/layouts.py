"""Layout files as the command line takes them: checked for engines, or shipped ones by name."""

from pathlib import Path

from engine.control import ApplyLayout
from engine.core.errors import LayoutError
from engine.core.layout import Layout, parse_layout
from engine.drivers.registry import DRIVERS
from engine.layout_files import read_layout as read_layout
from engine.layout_folders import shipped_folder


def checked(change: ApplyLayout) -> Layout:
    """The layout, with its engines and their forms checked too. Raises LayoutError."""
    engines = {name: driver.weight_only for name, driver in DRIVERS.items()}
    return parse_layout(change.text, name=change.name, engines=engines)


def shipped(name: str) -> Path:
    """A layout that came with slotdeck: from the wheel, or from the source tree."""
    path = shipped_folder() / name
    if path.is_file():
        return path
    raise LayoutError(
        what=f"The shipped layout {name} is missing",
        why=f"{path.parent} does not have it",
        do="Install slotdeck again",
    )
