"""Layout files on disk: read for both faces, and written so that none is ever half there."""

import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.control import ApplyLayout, HeldLayout, HeldWish
from engine.core.command import is_secret
from engine.core.errors import ControlError, LayoutError
from engine.core.layout import Instance, parse_layout
from engine.core.layout_edit import edited, renamed, withheld
from engine.core.likeness.fingerprint import Expect, fingerprint
from engine.core.topology import Machine

LARGEST_LAYOUT = 1 << 20
_MARK = b"\xef\xbb\xbf"
"""Some editors begin a file with a byte order mark, which TOML does not know."""


class NotSaved(ControlError):
    """A layout file could not be written; what was there is still whole."""


@dataclass(frozen=True, slots=True)
class Saving:
    """What saving would write; nothing is written yet."""

    path: Path
    """The file itself, behind every symbolic link."""
    before: str | None
    """Its text now; None where there is no such file."""
    after: str
    is_own: bool
    """New, or the file that the running layout came from."""
    notes: tuple[str, ...]
    """What is left out, in words."""
    mark: bytes = b""
    makes_folder: bool = False


def read_layout(path: str) -> ApplyLayout:
    """The file's text with where it stands. Raises LayoutError."""
    file = Path(path)
    try:
        with file.open("rb") as opened:  # may be a pipe, so its size is found by reading
            data = opened.read(LARGEST_LAYOUT + 1)
        text = data.removeprefix(_MARK).decode()
    except (OSError, ValueError) as error:
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


def saving(
    path: str,
    held: HeldLayout,
    machine: Machine,
    *,
    with_expect: bool = True,
    own: Path | None = None,
) -> Saving:
    """What would make that file say what runs. Raises ControlError; writes nothing.

    With `own`, the folder of the user's layouts, one word without `.toml` names a file in there,
    which is made where there is none yet; a new file then has that word for the layout's name.

    A file that is there is edited as it stands now. A new one begins as the applied layout's
    text, so that its comments come along. Relative paths of models and programs are put so that
    they lead from the new file to where they led. Secrets that the text does not hold are left
    out. `with_expect=False` also removes an `[expect]` that is there: it tells of other numbers.
    """
    if not held.wishes:
        raise NotSaved(
            what="There is nothing to save",
            why="the service has no instance",
            do="Start some: `slotdeck up LAYOUT`",
        )
    is_name = own is not None and bool(path) and "/" not in path and not path.endswith(".toml")
    target = _target(str(own / f"{path}.toml") if own and is_name else path, own)
    there = read_layout(str(target)) if target.exists() else None
    wishes = [_from(one, target.parent) for one in held.wishes]
    begin = held.text if there is None else there.text
    after = edited(
        begin,
        wishes,
        fingerprint(machine) if with_expect else Expect(),
        machine=machine,
        name=held.name or target.stem if there is None else path,
    )
    if there is None and is_name:
        after = renamed(after, path)
    return Saving(
        path=target,
        before=None if there is None else there.text,
        after=after,
        is_own=there is None or _came_from(target, there, held),
        notes=tuple(
            f"{secret} is a secret that this file does not hold: not written"
            for secret in withheld(begin, wishes, machine=machine)
        ),
        mark=_mark(target) if there is not None else b"",
        makes_folder=not target.parent.is_dir(),
    )


def rooted(wish: Instance, base: str) -> Instance:
    """The wish with its relative paths made absolute, so that it reads alike from any folder."""
    folder = Path(base)
    if not base:
        return wish
    if _is_relative_model(wish.model, folder):
        wish = msgspec.structs.replace(wish, model=os.path.normpath(folder / wish.model))
    program = wish.command[0] if wish.command else ""
    if "/" in program and program[0] not in "/~":
        words = (os.path.normpath(folder / program), *wish.command[1:])
        wish = msgspec.structs.replace(wish, command=words)
    return wish


def write(made: Saving) -> None:
    """Write it, whole or not at all. Raises NotSaved, also where the file has changed since."""
    now = read_layout(str(made.path)).text if made.path.exists() else None
    if now != made.before:
        raise NotSaved(
            what=f"{made.path} was not written",
            why="it has changed since it was looked at",
            do="Look at the differences again",
        )
    try:
        if made.makes_folder:
            made.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(made.path, made.mark + made.after.encode(), private=_holds_secret(made.after))
    except OSError as error:
        raise NotSaved(
            what=f"{made.path} was not written",
            why=error.strerror or str(error),
            do="Check the folder's permissions and its free space, or name another file",
        ) from None


def _target(path: str, own: Path | None = None) -> Path:
    try:
        target = Path(path).expanduser().resolve()
        if target.exists() and not target.is_file():
            raise NotSaved(
                what=f"{path} cannot be a layout file",
                why="it is a folder" if target.is_dir() else "it is no ordinary file",
                do="Name a file, e.g. layout.toml",
            )
        if not target.parent.is_dir() and (own is None or target.parent != own.resolve()):
            raise NotSaved(
                what=f"{path} cannot be written",
                why=f"there is no folder {target.parent}",
                do="Create the folder, or name another file",
            )
    except (OSError, RuntimeError, ValueError) as error:
        # Too long, a loop of links, the home of a user that there is not, a NUL.
        reason = error.strerror if isinstance(error, OSError) else None
        raise NotSaved(
            what=f"{path!r} cannot be a layout file",
            why=reason or str(error),
            do="Name another file",
        ) from None
    return target


def _came_from(target: Path, there: ApplyLayout, held: HeldLayout) -> bool:
    if held.path:
        return Path(held.path).resolve() == target
    return bool(held.name) and parse_layout(there.text, name="").name == held.name


def _from(one: HeldWish, folder: Path) -> Instance:
    """The wish with relative paths that lead from this folder to where they led."""
    base = Path(one.base)
    if not one.base or base.resolve() == folder:
        return one.wish
    wish = one.wish
    if _is_relative_model(wish.model, base):
        wish = msgspec.structs.replace(wish, model=_leading(base / wish.model, folder))
    program = wish.command[0] if wish.command else ""
    if "/" in program and not program.startswith("/"):
        words = (_leading(base / program, folder), *wish.command[1:])
        wish = msgspec.structs.replace(wish, command=words)
    return wish


def _is_relative_model(model: str, base: Path) -> bool:
    """Whether it is a directory beside the layout, and no hub id such as owner/name."""
    if not model or model.startswith(("/", "~", "bundled:")):
        return False
    if model.startswith(".") or model.count("/") != 1:
        return True
    with suppress(OSError, ValueError):
        return (base / model).is_dir()
    return False


def _leading(path: Path, folder: Path) -> str:
    relative = os.path.relpath(path, folder)
    return relative if relative.startswith(".") else f"./{relative}"


def _holds_secret(text: str) -> bool:
    return any(
        is_secret(variable)
        for wish in parse_layout(text, name="").instances
        for variable in wish.env
    )


def _mark(path: Path) -> bytes:
    with path.open("rb") as opened:
        return _MARK if opened.read(len(_MARK)) == _MARK else b""


def _replace(path: Path, data: bytes, *, private: bool) -> None:
    """Beside it first, then in its place, with the mode that it had."""
    new = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}")
    file = os.open(
        new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if private else 0o666
    )
    try:
        try:
            if path.exists():
                was = path.stat()
                with suppress(OSError):  # as root on another user's file
                    os.fchown(file, was.st_uid, was.st_gid)
                os.fchmod(file, stat.S_IMODE(was.st_mode))
            while data:
                data = data[os.write(file, data) :]
            os.fsync(file)
        finally:
            os.close(file)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
