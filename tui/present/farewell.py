"""What keeps running when the panel closes."""

from engine.core.status import InstanceStatus, Snapshot, State
from tui.present.text import clean
from tui.present.units import count

ALIVE = (State.STARTING, State.READY, State.STOPPING, State.BACKOFF)


def keeps_running(snapshot: Snapshot | None) -> tuple[InstanceStatus, ...]:
    """Instances whose engines outlive the panel."""
    return tuple(each for each in snapshot.instances if each.state in ALIVE) if snapshot else ()


def farewell(snapshot: Snapshot | None, *, most: int = 8, host: str = "") -> str:
    """The words on the terminal after the panel has closed."""
    program = f"slotdeck --host {host}" if host else "slotdeck"
    where = f" on {host}" if host else ""
    alive = keeps_running(snapshot)
    if not alive:
        return f"Nothing keeps running{where}; `{program}` opens this again."
    told = [
        f"{clean(each.name)} ({each.state.value}{', ' + clean(each.url) if each.url else ''})"
        for each in alive[:most]
    ]
    if len(alive) > most:
        told.append(f"and {len(alive) - most} more")
    verb = "keeps" if len(alive) == 1 else "keep"
    load = " The load generator runs on, too." if snapshot and snapshot.load else ""
    return (
        f"{count(len(alive), 'engine')} {verb} running{where}: {', '.join(told)}.{load}\n"
        f"`{program}` opens this again, `{program} down --all` stops them."
    )
