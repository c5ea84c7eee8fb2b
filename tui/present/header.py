"""The top line: what machine this is, and whether what you see is still true."""

from collections.abc import Sequence

from engine.core.topology import Machine
from tui.present.glyphs import Glyphs, spelled
from tui.present.ink import Line, Span
from tui.present.text import clean, fit
from tui.present.units import count, span
from tui.view import Connection, View

OLD_S = 3.0
"""From this age on a snapshot's age is shown."""


def machine_summary(machine: Machine) -> str:
    """`1 package · 1 NUMA node · 2 cores · 2 PUs`."""
    words = [
        count(len(machine.packages), "package"),
        count(len(machine.numa_nodes), "NUMA node"),
        count(len(machine.cores), "core"),
        count(len(machine.pus.online), "PU"),
    ]
    if machine.gpus:
        words.append(count(len(machine.gpus), "GPU"))
    return " · ".join(words)


def connection_span(view: View, now: float) -> Span:
    """Live, old, or gone: a word and a colour."""
    match view.connection:
        case Connection.CONNECTING:
            return Span("connecting…", "warning")
        case Connection.GONE:
            what = "link cut" if view.host else "service gone"
            left = 0.0 if view.retry_at is None else view.retry_at - now
            how = f"again in {span(left)}" if left >= 1.0 else "reconnecting"
            return Span(f"{what} — {how}", "error")
        case Connection.LIVE:
            age = None if view.arrived_at is None else now - view.arrived_at
            if age is not None and age > OLD_S:
                return Span(f"live, but {span(age)} old", "warning")
            return Span("live", "good")


def load_span(view: View) -> Span:
    """Whether the load generator runs, on what, and for how long still."""
    load = view.snapshot.load if view.snapshot else None
    if load is None:
        return Span("load off", "muted")
    streams = count(load.concurrency * len(load.targets), "stream")
    return Span(f"load on: {streams}, {span(load.ends_in_s)} left", "accent")


def header_line(
    view: View, width: int, now: float, glyphs: Glyphs, *, crumbs: Sequence[str] = ()
) -> Line:
    """Name and machine, or where one is, on the left, the connection on the right."""
    mark = glyphs.marks["ready" if view.connection is Connection.LIVE else "stopped"]
    state = connection_span(view, now)
    load = load_span(view)
    right = [Span(f"{mark} ", state.ink), state, Span("   "), load, Span(" ")]
    if view.readonly:
        right.insert(0, Span("read-only   ", "accent"))
    right = [Span(spelled(each.text, glyphs), each.ink) for each in right]
    used = sum(len(each.text) for each in right)
    left = [Span(" slotdeck ", "brand")]
    if view.host:
        room = width - used - 13
        left.append(Span(f" {fit(clean(view.host), max(0, min(30, room))).rstrip()}", "accent"))
    if crumbs:
        room = width - used - sum(len(each.text) for each in left) - 2
        path = f" {glyphs.crumb} ".join(clean(each) for each in crumbs)
        shown = fit(path, max(0, min(len(path), room)), more=glyphs.more)
        left += [Span(f" {glyphs.crumb} ", "muted"), Span(spelled(shown, glyphs), "title")]
    elif view.machine:
        room = width - used - sum(len(each.text) for each in left) - 3
        words = machine_summary(view.machine).split(" · ")
        short = view.machine.numa_nodes and [words[1], words[2]]
        for choice in (words, words[:4], short or [], []):
            text = spelled(" · ".join(choice), glyphs)
            if len(text) <= room:
                left.append(Span(f"  {text}", "text"))
                break
    pad = max(1, width - used - sum(len(each.text) for each in left))
    return (*left, Span(" " * pad), *right)
