"""What was done to placements since the service was started, to be undone and done again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from engine.control import (
    ApplyLayout,
    Change,
    Redo,
    RestartInstances,
    StopInstances,
    Undo,
    words_of,
)
from engine.core.errors import ControlError
from engine.core.history import History, Step
from engine.service.arranging import Stand, stand_of
from engine.service.orders import Planned
from engine.service.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Return:
    """What takes a step back, or does it again."""

    stands: tuple[Stand, ...] = ()
    """Who is to run, and where."""
    stops: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    """Who leaves the list."""
    words: tuple[str, ...] = ()


NOWHERE = Return()


class Past:
    """Remembers each applied change of placements with the state before and after."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.history: History[Stand] = History()

    def stands(self, names: Iterable[str]) -> dict[str, Stand | None]:
        """How these instances stand now."""
        managed = self._supervisor.managed
        return {name: stand_of(managed[name]) if name in managed else None for name in names}

    def remember(
        self,
        change: Change,
        before: Mapping[str, Stand | None],
        planned: Mapping[str, Planned],
        layout: str,
    ) -> None:
        """One step more; undoing one is none."""
        match change:
            case Undo():
                self.history = self.history.back()
                return
            case Redo():
                self.history = self.history.again()
                return
            case RestartInstances():
                return  # nothing changes its place
            case StopInstances(forget=True) | ApplyLayout():
                forgets = True
            case _:
                forgets = False
        after: dict[str, Stand | None] = {}
        for name, was in before.items():
            now = planned.get(name)
            if now is not None:
                its_layout = layout or (was.layout if was else "")
                after[name] = Stand(now.wish, now.base, its_layout, now.placement, strictly=True)
            else:
                after[name] = None if forgets or was is None else replace(was, active=False)
        if after:
            self.history = self.history.recorded(Step(words_of(change), before, after))

    def way(self, change: Undo | Redo) -> Return:
        """Bring the instances of a step to where they were on its other side. Raises
        ControlError where there is no such step."""
        back = isinstance(change, Undo)
        step = self.history.undo if back else self.history.redo
        if step is None:
            raise ControlError(
                what=f"There is nothing to {'undo' if back else 'do again'}",
                why="no placement was changed since the service was started"
                if back
                else "nothing was undone since the last change",
                do="Move, start or stop an instance first" if back else "Undo something first",
            )
        managed = self._supervisor.managed
        wanted, other = (step.before, step.after) if back else (step.after, step.before)
        stands = tuple(one for one in wanted.values() if one is not None and one.active)
        staying = {one.wish.name for one in stands}
        ending = [name for name in wanted if name not in staying and name in managed]
        gone = tuple(name for name in ending if wanted[name] is None)
        words = [f"takes back: {step.what}" if back else f"again: {step.what}"]
        words += [f"{name} leaves the list" for name in gone]
        words += [
            f"{name} did not run and has left the list: that stays so"
            for name, one in wanted.items()
            if one is not None and not one.active and name not in managed
        ]
        if back and any(one is not None and not one.active for one in other.values()):
            words.append("requests that were cut off by the stop stay lost")
        stops = tuple(name for name in ending if managed[name].active)
        return Return(stands, stops, gone, tuple(words))
