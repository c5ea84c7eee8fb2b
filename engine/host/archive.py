"""A recorded machine to read: a folder, or an archive of one, unpacked where only we may look."""

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from posixpath import dirname, normpath
from tempfile import TemporaryDirectory
from typing import IO, Any

from engine.core.errors import ControlError, UsageError
from engine.host.root import LARGEST_FILE, HostRoot

MOST_ENTRIES = 200_000
MOST_BYTES = 256 << 20
"""Of the archive without compression; a whole /sys of a large server is a tenth of both."""

_MAGIC: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_DO = "Name a folder that holds sys/ and proc/, or a .tar.gz, .tar.bz2 or .tar.xz of one"


@contextmanager
def open_root(path: Path) -> Iterator[HostRoot]:
    """The recorded machine at `path`; an archive's unpacked copy lives as long as the context.

    Raises UsageError for what is not a recorded machine, or an archive that is not safe to open.
    """
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        why = "there is no such folder or file"
        raise UsageError(what=f"{path} is not a recorded machine", why=why, do=_DO) from None
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise _refused(path, why) from None
    if stat.S_ISDIR(kind):
        yield HostRoot(_top(path, path).resolve())
        return
    if not stat.S_ISREG(kind):
        raise _refused(path, "it is neither a folder nor a file")
    with TemporaryDirectory(prefix="slotdeck-", ignore_cleanup_errors=True) as folder:
        whole = Path(folder).resolve()
        _unpack(path, whole)
        yield HostRoot(_top(whole, path))


def _top(folder: Path, named: Path) -> Path:
    """The folder itself where it holds sys/, else its only folder."""
    if (folder / "sys").is_dir():
        return folder
    inside = [each for each in folder.iterdir() if not each.name.startswith(".")]
    if len(inside) == 1 and (inside[0] / "sys").is_dir() and not inside[0].is_symlink():
        return inside[0]
    raise UsageError(what=f"{named} is not a recorded machine", why="it has no folder sys", do=_DO)


def _unpack(path: Path, folder: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(6)
            file.seek(0)
            opened = next((how for magic, how in _MAGIC.items() if head.startswith(magic)), None)
            stream: IO[bytes] = file if opened is None else opened(file, "rb")
            bounded = _Bounded(stream, path)
            # As a stream: an index of the whole archive would be built before any limit counts.
            with tarfile.open(fileobj=bounded, mode="r|") as archive:  # type: ignore[call-overload]
                _unpack_entries(archive, folder, path)
    except (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise _refused(path, f"it is no archive, or a damaged one ({error})") from None
    except OSError as error:
        if error.errno is None:  # gzip's and bz2's own words for a damaged file
            raise _refused(path, f"it is no archive, or a damaged one ({error})") from None
        raise ControlError(
            what=f"{path} cannot be unpacked",
            why=error.strerror or str(error),
            do="Free some space for temporary files, or unpack it and name the folder",
        ) from None


def _unpack_entries(archive: tarfile.TarFile, folder: Path, path: Path) -> None:
    links: list[tuple[Path, str]] = []
    # Sparse files and hard links write more than the archive holds.
    left = MOST_BYTES
    for count, entry in enumerate(archive):
        if count >= MOST_ENTRIES:
            raise _refused(path, f"it holds more than {MOST_ENTRIES} entries")
        name = normpath(entry.name)
        if name.startswith(("/", "..")) or "\0" in name:
            raise _refused(path, f"its entry {entry.name[:80]!r} points outside of it")
        target = folder / name
        try:
            if entry.isdir():
                target.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif entry.isfile():
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                content = archive.extractfile(entry)
                left -= target.write_bytes(content.read(LARGEST_FILE) if content else b"")
            elif entry.issym() and _stays(name, entry.linkname):
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                links.append((target, entry.linkname))
            elif entry.islnk() and _stays("", entry.linkname):
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                left -= target.write_bytes((folder / normpath(entry.linkname)).read_bytes())
            # Devices, pipes and links that leave the tree: nothing in /sys or /proc that we read.
        except (FileExistsError, NotADirectoryError, IsADirectoryError, FileNotFoundError):
            raise _refused(path, f"its entry {entry.name[:80]!r} contradicts another") from None
        if left < 0:
            raise _refused(path, f"it unpacks to more than {MOST_BYTES >> 20} MiB")
    # Links come last, so that no entry was ever written through one.
    made = [target for target, linked in links if _make_link(target, linked)]
    for target in made:
        # What looks inside by its text may still leave through another link on its way.
        if not os.path.realpath(target).startswith(f"{folder}{os.sep}"):
            target.unlink()


def _stays(name: str, linked: str) -> bool:
    inside = normpath(f"{dirname(name)}/{linked}" if dirname(name) else linked)
    return not linked.startswith("/") and not inside.startswith("..") and "\0" not in linked


def _make_link(target: Path, linked: str) -> bool:
    try:
        target.symlink_to(linked)
    except FileExistsError:
        return False  # a later entry of the same name won
    return True


def _refused(path: Path, why: str) -> UsageError:
    return UsageError(what=f"{path} is not opened", why=why, do=_DO)


class _Bounded:
    """A stream that ends in a refusal when it grows beyond what a recorded machine can be."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path, self._left = stream, path, MOST_BYTES

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise _refused(self._path, f"it unpacks to more than {MOST_BYTES >> 20} MiB")
        return data
