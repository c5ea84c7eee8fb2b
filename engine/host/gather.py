"""Records a machine: just the files of /sys and /proc that our readers ask for, in one archive."""

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import NamedTemporaryFile

from engine.core.errors import ControlError, UsageError
from engine.core.topology import Machine
from engine.host.archive import open_root
from engine.host.machine import read_machine
from engine.host.recorder import Kept, Recorder
from engine.host.root import HostRoot

TOP = "machine"
"""The archive's one folder: unpacked by hand, it makes no mess."""

Read = Callable[[HostRoot], Machine]


@dataclass(frozen=True, slots=True)
class Gathered:
    """A written record."""

    path: Path
    size_bytes: int
    entries: int
    machine: Machine
    left_out: tuple[str, ...]
    """Private files that a reader asked for."""
    differences: tuple[str, ...]
    """Fields of the machine that read otherwise from the record; empty as long as all is well."""


def gather(root: HostRoot, target: Path, read: Read | None = None) -> Gathered:
    """Record the machine under `root` in the new file `target`.

    The same machine makes the same bytes. Raises UsageError for a name that will not do (a file
    that is there already is never overwritten) and ControlError when it cannot be written.
    """
    read = read or read_machine
    if not target.name.endswith(".tar.gz"):
        raise UsageError(
            what=f"{target} will not do as a record's name",
            why="records are archives of the kind .tar.gz",
            do=f"Name it {target.name or 'machine'}.tar.gz",
        )
    try:
        target.lstat()
    except (OSError, ValueError):  # free, or writing will tell why not
        pass
    else:
        raise _exists(target)
    recorder = Recorder(root.path)
    machine = read(recorder)
    data = _packed(recorder.kept)
    try:
        with NamedTemporaryFile(dir=target.parent, prefix=".gather-", suffix=".tar.gz") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            with open_root(Path(file.name)) as again:
                differences = _differences(machine, read(again))
            _publish(Path(file.name), target)
    except FileExistsError:
        raise _exists(target) from None
    except (OSError, ValueError) as error:
        raise ControlError(
            what=f"{target} could not be written",
            why=(error.strerror if isinstance(error, OSError) else None) or str(error),
            do="Name a file in a folder that exists, is yours to write, and has room",
        ) from None
    return Gathered(
        path=target,
        size_bytes=len(data),
        entries=len(recorder.kept),
        machine=machine,
        left_out=tuple(sorted(recorder.refused)),
        differences=differences,
    )


def _packed(kept: dict[str, Kept]) -> bytes:
    """Names in order, no times, no owners: nothing but the content makes two records differ."""
    folders = {parent for name in kept for parent in _parents(name)}
    whole = {**dict.fromkeys(folders, Kept()), **kept}
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, entry in sorted({"": Kept(), **whole}.items()):
            info = tarfile.TarInfo(f"{TOP}/{name}".rstrip("/"))
            info.mode = 0o644
            if entry.link is not None:
                info.type, info.linkname = tarfile.SYMTYPE, entry.link
            elif entry.content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            else:
                info.size = len(entry.content)
            archive.addfile(info, io.BytesIO(entry.content or b""))
    return packed.getvalue()


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def _publish(written: Path, target: Path) -> None:
    """Give the whole file its name in one step, unless the name is taken meanwhile."""
    written.chmod(0o644)
    try:
        target.hardlink_to(written)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(target) from None
        written.rename(target)
        written.touch()  # for the temporary file to have something to remove
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _differences(machine: Machine, again: Machine) -> tuple[str, ...]:
    # Who may open a render node is of the user, not of the machine: a record does not hold it.
    machine = replace(machine, gpus=tuple(replace(gpu, may_open=None) for gpu in machine.gpus))
    return tuple(
        field.name
        for field in fields(Machine)
        if field.name != "live" and getattr(machine, field.name) != getattr(again, field.name)
    )


def _exists(target: Path) -> UsageError:
    return UsageError(
        what=f"{target} is there already",
        why="a record never overwrites a file",
        do="Name another file, or remove that one first",
    )
