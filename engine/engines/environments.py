"""Where the engines' own environments lie, which is in use, and what it holds.

DATA is `Paths.data`:

    DATA/engines/NAME/KEY/         a virtual environment; its key names its exact content
    DATA/engines/NAME/KEY/slotdeck-engine.json   written last: the environment is whole
    DATA/engines/NAME/current      a link to the KEY that new instances get
    DATA/engines/NAME/downloads/   packages fetched for an install that did not end yet
    DATA/engines/NAME/install.log  what pip said the last time

An environment cannot be moved once it is made, so each is made in its place, and a link says
which one counts: an install that fails or is killed changes nothing that worked.
"""

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.core.errors import ControlError

MARKER = "slotdeck-engine.json"
DOWNLOADS = "downloads"
LOG = "install.log"
_CURRENT = "current"
_SCHEMA = "slotdeck.engine/1"


@dataclass(frozen=True, slots=True)
class Installed:
    """What the marker of a whole environment says."""

    schema: str
    engine: str
    key: str
    torch_build: str
    python_version: str
    packages: dict[str, str]
    size_bytes: int
    seconds: float
    installed_at: str


def python_of(engine: str, data: Path) -> Path | None:
    """The Python of an installed engine; None where there is none. `data` is `Paths.data`.

    The path names the environment itself and not the link to it: an engine that runs goes on
    loading its own files after another version was installed.
    """
    folder = current(engine, data)
    return None if folder is None else folder / "bin" / "python"


def current(engine: str, data: Path) -> Path | None:
    """The whole environment that new instances of an engine get; None where there is none."""
    home = home_of(engine, data)
    try:
        key = os.readlink(home / _CURRENT)  # noqa: PTH115 - the text as it stands
    except OSError:
        return None
    folder = home / key
    is_ours = "/" not in key and key not in ("", ".", "..")
    whole = is_ours and (folder / MARKER).is_file() and os.access(folder / "bin/python", os.X_OK)
    return folder if whole else None


def home_of(engine: str, data: Path) -> Path:
    """An engine's own folder; a name with a slash in it has one where nothing is."""
    return data / "engines" / engine.replace("/", "_").replace("..", "_")


def installed(engine: str, data: Path) -> Installed | None:
    """What the current environment's marker says; None where there is none to read."""
    folder = current(engine, data)
    return None if folder is None else read_marker(folder)


def read_marker(folder: Path) -> Installed | None:
    """None for an environment that is not whole, or was made by another version of slotdeck."""
    try:
        marker = msgspec.json.decode((folder / MARKER).read_bytes(), type=Installed)
    except (OSError, msgspec.DecodeError):
        return None
    return marker if marker.schema == _SCHEMA else None


def write_marker(folder: Path, marker: Installed) -> None:
    """The last file of an environment: from now on it is whole, on the disk too."""
    new = folder / f".{MARKER}.new"
    with new.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(marker), indent=1) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / MARKER)
    _sync(folder)


def make_current(folder: Path) -> None:
    """Point the link at this environment, in one step."""
    link = folder.parent / f".{_CURRENT}.new"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    link.replace(folder.parent / _CURRENT)
    _sync(folder.parent)


def marker_of(
    engine: str,
    key: str,
    *,
    torch_build: str,
    python_version: str,
    packages: dict[str, str],
    size_bytes: int,
    seconds: float,
    installed_at: str,
) -> Installed:
    """A marker of this version of slotdeck."""
    return Installed(
        _SCHEMA,
        engine,
        key,
        torch_build,
        python_version,
        packages,
        size_bytes,
        round(seconds, 1),
        installed_at,
    )


def remains(engine: str, data: Path) -> tuple[Path, ...]:
    """What lies in an engine's folder beside the current environment: older ones, and what an
    install or a removal that was killed left behind. Never its downloads and its log."""
    home = home_of(engine, data)
    try:
        found = sorted(home.iterdir())
    except OSError:
        return ()
    kept = {current(engine, data), home / _CURRENT, home / DOWNLOADS, home / LOG}
    return tuple(one for one in found if one not in kept)


def delete(folder: Path) -> None:
    """Remove a folder or link; an environment stops being one first."""
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
        return
    (folder / MARKER).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def make_home(engine: str, data: Path) -> Path:
    """The engine's folder, it and its parents for this user alone. Raises ControlError."""
    home = home_of(engine, data)
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
        for folder in (data, data / "engines", home):
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                raise ControlError(
                    what=f"The folder {folder} is not safe",
                    why="it is a link, or belongs to somebody else",
                    do="Remove it, or name another place in XDG_DATA_HOME",
                )
            folder.chmod(0o700)
    except OSError as error:
        raise ControlError(
            what=f"The folder {home} cannot be made",
            why=error.strerror or str(error),
            do="Free some space, or name another place in XDG_DATA_HOME",
        ) from None
    return home


def size_of(folder: Path) -> int:
    """Bytes on disk, each file once."""
    total = 0
    seen: set[tuple[int, int]] = set()
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.lstat(f"{path}/{name}")
            except OSError:
                continue
            if found.st_nlink > 1:
                if (found.st_dev, found.st_ino) in seen:
                    continue
                seen.add((found.st_dev, found.st_ino))
            total += found.st_blocks * 512
    return total


def site_packages(folder: Path) -> Path:
    """Where an environment keeps its packages."""
    return next((folder / "lib").glob("python3*/site-packages"))


def inside(folder: Path) -> list[Path]:
    """What a folder holds, sorted; empty where there is none."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


@contextlib.contextmanager
def locked(home: Path) -> Iterator[int]:
    """One install or removal of an engine at a time; pip holds it open, so that one that lost
    its parent keeps the next away."""
    file = os.open(
        home.parent / f".{home.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ControlError(
                what=f"{home.name} is being installed or removed already",
                why="another `slotdeck engines` works on it",
                do="Wait until it has ended",
            ) from None
        yield file
    finally:
        os.close(file)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
