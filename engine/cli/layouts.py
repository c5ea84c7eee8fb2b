"""Reading layout files by path, or by the name of a shipped one."""

from pathlib import Path

from engine.control import ApplyLayout
from engine.core.errors import LayoutError
from engine.core.layout import Layout, parse_layout
from engine.drivers.registry import DRIVERS

LARGEST_LAYOUT = 1 << 20


def read_layout(path: str) -> ApplyLayout:
    """The file's text with where it stands. Raises LayoutError."""
    file = Path(path)
    try:
        with file.open("rb") as opened:  # may be a pipe, so its size is found by reading
            data = opened.read(LARGEST_LAYOUT + 1)
        # Some editors begin a file with a byte order mark, which TOML does not know.
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise LayoutError(
            what=f"{path} cannot be read",
            why=reason or str(error),
            do="Check the path and its permissions",
        ) from None
    if len(data) > LARGEST_LAYOUT:
        raise LayoutError(
            what=f"{path} is not a layout file",
            why="it is larger than 1 MiB",
            do="Name a TOML layout file",
        )
    return ApplyLayout(name=path, text=text, base=str(file.resolve().parent))


def checked(change: ApplyLayout) -> Layout:
    """The layout, with its engines and their forms checked too. Raises LayoutError."""
    engines = {name: driver.weight_only for name, driver in DRIVERS.items()}
    return parse_layout(change.text, name=change.name, engines=engines)


def shipped(name: str) -> Path:
    """A layout that came with slotdeck: from the wheel, or from the source tree."""
    package = Path(__file__).parent.parent
    for folder in (package / "_layouts", package.parent / "layouts"):
        if (folder / name).is_file():
            return folder / name
    raise LayoutError(
        what=f"The shipped layout {name} is missing",
        why=f"neither {package / '_layouts'} nor {package.parent / 'layouts'} has it",
        do="Install slotdeck again",
    )
