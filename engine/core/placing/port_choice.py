"""Ports: those that the file names, those that instances keep, and free ones for the rest."""

from collections.abc import Mapping, Sequence

from engine.core.errors import CannotPlace
from engine.core.layout import Instance, Ports


class PortChoice:
    """Gives each instance of a layout its port."""

    def __init__(
        self,
        ports: Ports,
        wishes: Sequence[Instance],
        taken: Mapping[int, str],
        kept: Mapping[str, int],
    ) -> None:
        self._range = ports
        self._taken = dict(taken)
        self._kept = kept
        self._named = {one.port: one.name for one in reversed(wishes) if one.port}
        self._ending = frozenset(kept.values())
        names = {one.name for one in wishes}
        self._theirs = {port: name for name, port in kept.items() if name in names}

    def conflict(self, wish: Instance) -> CannotPlace | None:
        """Why it cannot have the port that it names; None where it names none, or can."""
        if wish.port is None:
            return None
        holder = self._taken.get(wish.port, self._named[wish.port])
        if holder == wish.name:
            return None
        return CannotPlace(
            f"port {wish.port} is taken by {holder}",
            "Choose another port, or leave it out to get a free one",
        )

    def choose(self, wish: Instance) -> int:
        """The instance's port, free until `take` is called. Raises CannotPlace."""
        if wish.port is not None:
            if conflict := self.conflict(wish):
                raise conflict
            return wish.port
        kept = self._kept.get(wish.name)
        if kept is not None and kept not in self._taken and kept not in self._named:
            return kept
        # Those that others of this layout want to keep are theirs; those of instances that the
        # layout ends are only free once they have ended, so they come last.
        later: int | None = None
        for port in range(self._range.first, self._range.last + 1):
            if port in self._taken or port in self._named:
                continue
            if self._theirs.get(port, wish.name) != wish.name:
                continue
            if port not in self._ending:
                return port
            later = later or port
        if later is not None:
            return later
        raise CannotPlace(
            f"no port is free in {self._range.first}-{self._range.last}",
            "Widen [ports] in the layout",
        )

    def take(self, port: int, name: str) -> None:
        """From now on the port is this instance's."""
        self._taken[port] = name
