"""What has happened, as the parts of the panel tell each other."""

from dataclasses import dataclass

from textual.message import Message

from engine.core.status import Snapshot
from engine.core.topology import Machine
from engine.core.trail import PastFigures
from tui.present.ab_wish import AbWish
from tui.view import Connection


@dataclass
class SnapshotArrived(Message, bubble=False):
    """A newer snapshot; an unread older one is worth nothing."""

    snapshot: Snapshot
    at: float

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, SnapshotArrived)


@dataclass
class LookAgain(Message, bubble=False):
    """The terminal was behind; perhaps it has caught up."""


@dataclass
class MachineRead(Message, bubble=False):
    """The machine's facts for the revision of the newest snapshot."""

    machine: Machine


@dataclass
class PastRead(Message, bubble=False):
    """The figures from before the panel was opened."""

    past: PastFigures
    at: float


@dataclass
class ConnectionChanged(Message, bubble=False):
    """The service answers, or is gone and why."""

    connection: Connection
    why: str = ""
    retry_at: float | None = None


@dataclass
class InstanceSelected(Message):
    """The user chose an instance in the table or in the map."""

    name: str


@dataclass
class SlotAimed(Message):
    """The map's cursor stands on a slot."""

    slot: str


@dataclass
class SlotChosen(Message):
    """Enter, or a click, on a slot."""

    slot: str


@dataclass
class InstanceOpened(Message):
    """The user wants to see all of an instance."""

    name: str


@dataclass
class ComparisonWanted(Message):
    """The user wants an A/B."""

    wish: AbWish


@dataclass
class ColumnChosen(Message):
    """The user clicked the head of a column."""

    column: str


@dataclass
class FilterChanged(Message):
    """Other words in the filter's line."""

    words: str


@dataclass
class FilterEntered(Message):
    """Enter, in the filter's line."""

    words: str
