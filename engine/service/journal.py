"""What runs, on disk: written whole, atomically and fsynced, for the next service to adopt."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from engine.core.codec import decode, encode
from engine.core.layout import Instance, Ports
from engine.core.lifecycle import Life
from engine.core.placement import Placement
from engine.service.launcher import Launched

SCHEMA = "slotdeck.journal/1"


@dataclass(frozen=True, slots=True)
class Running:
    """What the process was started with, or moved to since; the wish may be another by now."""

    wish: Instance
    placement: Placement
    group: str = ""
    """The folder of a control group of its own, where a move had to make one."""
    limits: tuple[str, ...] = ()
    """The folders of the control groups that limit it."""

    @property
    def groups(self) -> tuple[str, ...]:
        """All that is to be taken away after it, the innermost first."""
        return (self.group, *self.limits) if self.group else self.limits


@dataclass(frozen=True, slots=True)
class JournalRow:
    """One instance as the next service needs it; `life.since` means nothing to it."""

    wish: Instance
    placement: Placement
    base: str
    life: Life
    mark: str
    launched: Launched | None
    started_at: str | None
    verified: bool | None = None
    layout: str = ""
    ports: Ports = field(default_factory=Ports)
    running: Running | None = None
    """Until nothing of the process is left; also while it is being started."""
    forget: bool = False


@dataclass(frozen=True, slots=True)
class JournalPage:
    """The whole file."""

    schema: str
    boot_id: str
    instances: list[JournalRow] = field(default_factory=list)
    pids: str = ""
    host: str = ""
    """With `boot_id`, who has written it (`engine.host.whose`)."""


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What a journal held, or why it could not be used."""

    page: JournalPage | None
    problem: str = ""


def write_journal(path: Path, page: JournalPage) -> None:
    """Replace the journal; raises OSError with the old one still whole."""
    new = path.with_suffix(".new")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        data = encode(page)
        while data:
            data = data[os.write(file, data) :]
        os.fsync(file)
    finally:
        os.close(file)
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class _Head(msgspec.Struct):
    schema: str


def read_journal(path: Path) -> ReadBack:
    """Read the journal; an unreadable one is put aside under another name, never overwritten."""
    read = peek_journal(path)
    return _aside(path, read.problem) if read.problem else read


def peek_journal(path: Path) -> ReadBack:
    """Read the journal and leave it where it is, for whoever is not its writer."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ReadBack(None)
    except OSError as error:
        return ReadBack(None, f"{path} cannot be read ({error.strerror})")
    try:
        # First the schema alone: another version's rows need not look like ours.
        schema = msgspec.json.decode(data, type=_Head).schema
        if schema != SCHEMA:
            return ReadBack(None, f"{path} was written by another version ({schema})")
        return ReadBack(decode(data, JournalPage))
    except (msgspec.DecodeError, ValueError) as error:
        return ReadBack(None, f"{path} is torn or not ours ({error})")


def _aside(path: Path, problem: str) -> ReadBack:
    aside = path.with_suffix(".unread")
    count = 1
    while aside.exists():
        count += 1
        aside = path.with_suffix(f".unread-{count}")
    try:
        path.replace(aside)
    except OSError as error:
        return ReadBack(None, f"{problem}, and cannot be kept aside ({error.strerror})")
    return ReadBack(None, f"{problem}; it is kept as {aside.name}")
