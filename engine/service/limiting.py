"""What an instance's limits take here: the control groups of one start, or why there are none."""

from dataclasses import dataclass

from engine.core.errors import LaunchError
from engine.core.layout import Instance
from engine.host.limit_groups import LimitGroup, groups_for, make
from engine.host.root import HostRoot

_NAME_LENGTH = 12


@dataclass(frozen=True, slots=True)
class Limiting:
    """The groups that one engine is started in."""

    groups: tuple[LimitGroup, ...] = ()
    refused: str = ""
    """What cannot be limited here, where the layout allows that; empty where all can."""

    @property
    def folders(self) -> tuple[str, ...]:
        return tuple(group.folder for group in self.groups)


def limiting_of(root: HostRoot, wish: Instance, mark: str) -> Limiting:
    """The groups of a start, not made yet. Raises LaunchError where a limit cannot be kept."""
    groups, refused = groups_for(root, mark[:_NAME_LENGTH], wish.limits)
    if refused and not wish.allow_degraded:
        raise LaunchError(
            what=f"Instance {wish.name} was not started",
            why=refused[0].why,
            do=f"{refused[0].do}, leave the limit out, or write allow_degraded = true",
        )
    return Limiting(groups, "; ".join(one.why for one in refused))


def make_groups(root: HostRoot, limiting: Limiting) -> None:
    """Raises OSError with the file's name."""
    for group in limiting.groups:
        make(root, group)
