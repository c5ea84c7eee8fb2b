"""What runs, on disk: written whole, atomically and fsynced, for the next service to adopt."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from engine.core.codec import decode, encode
from engine.core.layout import Instance
from engine.core.lifecycle import Life
from engine.core.placement import Placement
from engine.service.launcher import Launched

SCHEMA = "slotdeck.journal/1"


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


@dataclass(frozen=True, slots=True)
class JournalPage:
    """The whole file."""

    schema: str
    boot_id: str
    instances: list[JournalRow] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What a journal held, or why it could not be used."""

    page: JournalPage | None
    problem: str = ""


def write_journal(path: Path, page: JournalPage) -> None:
    """Replace the journal; raises OSError with the old one still whole."""
    new = path.with_suffix(".new")
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


def read_journal(path: Path) -> ReadBack:
    """Read the journal; an unreadable one is put aside under another name, never overwritten."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ReadBack(None)
    except OSError as error:
        return ReadBack(None, f"{path} cannot be read: {error.strerror}")
    try:
        page = decode(data, JournalPage)
    except (msgspec.DecodeError, ValueError) as error:
        problem = f"{path} is torn or not ours ({error})"
    else:
        if page.schema == SCHEMA:
            return ReadBack(page)
        problem = f"{path} was written by another version ({page.schema})"
    aside = path.with_suffix(".unread")
    path.replace(aside)
    return ReadBack(None, f"{problem}; it is kept as {aside.name}, running engines are not known")
