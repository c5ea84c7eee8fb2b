"""What keeps running when the panel closes."""

from engine.core.status import InstanceStatus, Snapshot, State
from tui.present.text import clean
from tui.present.units import count

ALIVE = (State.STARTING, State.READY, State.STOPPING, State.BACKOFF)


def keeps_running(snapshot: Snapshot | None) -> tuple[InstanceStatus, ...]:
    """Instances whose engines outlive the panel."""
    return tuple(each for each in snapshot.instances if each.state in ALIVE) if snapshot else ()


def farewell(snapshot: Snapshot | None, *, most: int = 8) -> str:
    """The words on the terminal after the panel has closed."""
    alive = keeps_running(snapshot)
    if not alive:
        return "Nothing keeps running; `slotdeck` opens this again."
    told = [
        f"{clean(each.name)} ({each.state.value}{', ' + clean(each.url) if each.url else ''})"
        for each in alive[:most]
    ]
    if len(alive) > most:
        told.append(f"and {len(alive) - most} more")
    verb = "keeps" if len(alive) == 1 else "keep"
    load = " The load generator runs on, too." if snapshot and snapshot.load else ""
    return (
        f"{count(len(alive), 'engine')} {verb} running: {', '.join(told)}.{load}\n"
        "`slotdeck` opens this again, `slotdeck down --all` stops them."
    )
