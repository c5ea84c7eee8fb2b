"""A new service takes over what an earlier one started: by boot id, pid and start time."""

import time
from dataclasses import replace

from engine.core.lifecycle import Life
from engine.core.status import State
from engine.host.process import boot_id
from engine.service.journal import JournalRow, read_journal
from engine.service.launcher import Launched
from engine.service.managed import Managed
from engine.service.processes import exit_record
from engine.service.supervisor import Supervisor


def adopt(supervisor: Supervisor) -> None:
    """Read the journal and take over every engine of it that still runs."""
    read = read_journal(supervisor.paths.journal)
    if read.problem:
        supervisor.tell(read.problem, "error")
    if read.page is None:
        return
    rebooted = read.page.boot_id != boot_id(supervisor.root)
    for row in read.page.instances:
        managed = _managed(supervisor, row)
        supervisor.managed[managed.name] = managed
        if rebooted:
            _rest(managed, "the machine was restarted")
        elif managed.life.state in (State.STARTING, State.READY, State.STOPPING):
            _take_over(supervisor, managed)
        elif managed.life.state is State.BACKOFF:
            supervisor.tell(f"{managed.name}: goes on waiting to restart")
    supervisor.save()


def _managed(supervisor: Supervisor, row: JournalRow) -> Managed:
    now = time.monotonic()
    return Managed(
        wish=row.wish,
        placement=row.placement,
        base=row.base,
        # The journal's times are of another process's clock; waiting starts again.
        life=replace(row.life, since=now, retry_at=now, killed_at=None),
        folder=supervisor.paths.instance(row.wish.name),
        layout=row.layout,
        mark=row.mark,
        launched=row.launched,
        started_at=row.started_at,
        verified=row.verified,
    )


def _rest(managed: Managed, why: str) -> None:
    managed.launched = None
    managed.verified = None
    managed.life = Life(State.STOPPED, managed.life.since, why, restarts=managed.life.restarts)


def _take_over(supervisor: Supervisor, managed: Managed) -> None:
    if managed.launched is None:
        managed.launched = _from_shim(managed)
    if managed.launched is None:
        _rest(managed, "the service ended before it was started")
        return
    if not supervisor.watch(managed):
        supervisor.collect_ended(managed)
        return
    supervisor.tell(f"{managed.name}: adopted, pid {managed.launched.pid}")
    if managed.life.state is State.STARTING:
        supervisor.probe(managed)
    elif managed.life.state is State.STOPPING:
        supervisor.terminate(managed)
    else:
        supervisor.recheck(managed)


def _from_shim(managed: Managed) -> Launched | None:
    """The service died between starting an engine and writing it down: its shim wrote it too."""
    record = exit_record(managed.folder, managed.mark) if managed.mark else {}
    pid, ticks = record.get("pid"), record.get("started_ticks")
    if isinstance(pid, int) and isinstance(ticks, int):
        return Launched(pid, ticks, shim_pid=0, shim_ticks=0, degraded="")
    return None
