"""What the panel knows at one moment: the value that every presenter and action is given."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from engine.core.status import InstanceStatus, Snapshot
from engine.core.topology import Machine


class Connection(StrEnum):
    """How the panel stands to the service."""

    CONNECTING = "connecting"
    LIVE = "live"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class View:
    """Machine, newest snapshot, and what the user has selected."""

    machine: Machine | None = None
    snapshot: Snapshot | None = None
    connection: Connection = Connection.CONNECTING
    why_gone: str = ""
    retry_at: float | None = None
    """While it is gone: when the next attempt begins, on the panel's own clock."""
    host: str = ""
    """Where the service is; empty for this machine."""
    arrived_at: float | None = None
    """When the newest snapshot arrived, on the panel's own monotonic clock."""
    readonly: bool = False
    selected: str | None = None
    """The selected instance's name."""
    marked: frozenset[str] = frozenset()
    """Names of the instances that an action is for, all at once."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Keys of the user's own choice: action -> Textual's name of the key."""
    mouse: bool = True
    """Whether the mouse is the panel's; else the terminal selects text with it."""

    @property
    def instances(self) -> tuple[InstanceStatus, ...]:
        """All instances of the newest snapshot."""
        return self.snapshot.instances if self.snapshot else ()

    @property
    def instance(self) -> InstanceStatus | None:
        """The selected instance, or None."""
        return self.named(self.selected)

    def seen(self, machine: Machine, snapshot: Snapshot, at: float) -> "View":
        """The same with the first sight of a service."""
        return replace(
            self,
            machine=machine,
            snapshot=snapshot,
            connection=Connection.LIVE,
            arrived_at=at,
            selected=next((each.name for each in snapshot.instances), None),
        )

    @property
    def chosen(self) -> tuple[InstanceStatus, ...]:
        """The marked instances, or else the selected one."""
        if self.marked:
            return tuple(each for each in self.instances if each.name in self.marked)
        return (self.instance,) if self.instance else ()

    def named(self, name: str | None) -> InstanceStatus | None:
        """The instance of that name, or None."""
        return next((each for each in self.instances if each.name == name), None)
