"""A new service takes over what an earlier one started: by boot id, pid and start time."""

import asyncio
import time
from dataclasses import replace

from engine.core.lifecycle import Exited, Life, Spawn, Sweep, Terminate
from engine.core.status import State
from engine.host.process import boot_id
from engine.host.root import HostRoot
from engine.service.journal import JournalRow, read_journal
from engine.service.launcher import Launched
from engine.service.managed import Managed
from engine.service.orphans import unknown_to
from engine.service.processes import exit_record, kill_start, lives, shims
from engine.service.supervisor import Supervisor
from engine.service.talk import ANSWER_WITHIN_S


def adopt(supervisor: Supervisor) -> None:
    """Read the journal and take over every engine of it that still runs."""
    paths = supervisor.paths
    if paths.shared_with:
        supervisor.tell(
            f"{paths.shared} is shared with another host ({paths.shared_with}), or this one had "
            f"that name before: its journal is left alone, this host keeps its own in "
            f"{paths.state}",
            "warning",
        )
    read = read_journal(paths.journal)
    if read.problem:
        supervisor.tell(f"{read.problem}; {_unknown_engines(supervisor)}", "error")
    supervisor.save()  # also where there is nothing yet: it says whose the folder is
    if read.page is None:
        supervisor.run(_tell_of_orphans(supervisor))
        return
    rebooted = read.page.boot_id != boot_id(supervisor.root)
    if rebooted and read.page.instances:
        names = ", ".join(row.wish.name for row in read.page.instances)
        supervisor.tell(f"the machine was restarted since; not running any more: {names}")
    for row in read.page.instances:
        try:
            managed = _managed(supervisor, row)
        except KeyError:
            text = f"{row.wish.name}: this version has no engine {row.wish.engine!r}"
            supervisor.tell(text, "error")
            continue
        supervisor.managed[managed.name] = managed
        if rebooted:
            _rest(managed, "the machine was restarted")
        elif managed.life.state in (State.STARTING, State.READY, State.STOPPING):
            supervisor.run(_take_over(supervisor, managed))
        elif managed.running is not None:
            supervisor.carry_out(managed, Sweep())
    supervisor.run(_tell_of_orphans(supervisor))


async def _tell_of_orphans(supervisor: Supervisor) -> None:
    """What runs of earlier services and belongs to nobody is told; only the user ends it."""

    def known() -> set[str]:
        return {managed.mark for managed in list(supervisor.managed.values()) if managed.mark}

    found = await asyncio.to_thread(unknown_to, supervisor.root, supervisor.paths, known)
    if found:
        named = ", ".join(f"{one.name} (pid {one.pid}, of {one.instance})" for one in found)
        supervisor.tell(
            f"left over from earlier, and nobody's any more: {named}; "
            "`slotdeck service reap` ends that",
            "warning",
        )


def _managed(supervisor: Supervisor, row: JournalRow) -> Managed:
    now = time.monotonic()
    managed = Managed(
        wish=row.wish,
        placement=row.placement,
        base=row.base,
        # The journal's times are of another process's clock; waiting starts again.
        life=replace(row.life, since=now, retry_at=now, killed_at=None),
        folder=supervisor.paths.instance(row.wish.name),
        layout=row.layout,
        ports=row.ports,
        mark=row.mark,
        launched=row.launched,
        started_at=row.started_at,
        verified=None,  # nobody watched it for a while
        running=row.running,
        forget=row.forget,
        patience=supervisor.patience,
    )
    _ = managed.policy  # raises KeyError for an engine that we do not have
    return managed


def _rest(managed: Managed, why: str) -> None:
    managed.launched = managed.running = None
    managed.verified = None
    managed.life = Life(State.STOPPED, managed.life.since, why, restarts=managed.life.restarts)


async def _take_over(supervisor: Supervisor, managed: Managed) -> None:
    if managed.launched is None:
        async with managed.work:  # a stop that is asked for now comes after
            managed.launched = await _from_shim(supervisor.root, managed)
    launched, state = managed.launched, managed.life.state
    if launched is None:
        if state is State.STARTING:
            supervisor.tell(f"{managed.name}: the service ended before it was started")
            supervisor.carry_out(managed, Sweep(), Spawn())
        else:
            supervisor.feed(managed, Exited(None))
        return
    if lives(supervisor.root, launched.pid, launched.started_ticks):
        supervisor.tell(f"{managed.name}: adopted, pid {launched.pid}")
        if state is State.STARTING:
            supervisor.probe(managed)
        elif state is State.STOPPING:
            supervisor.carry_out(managed, Terminate())
        else:
            supervisor.run(supervisor.verify(managed))
    supervisor.watch(managed)
    supervisor.save()


async def _from_shim(root: HostRoot, managed: Managed) -> Launched | None:
    """The service died between starting an engine and writing it down: its shim wrote it too,
    or does so in a moment."""
    mark = managed.mark
    deadline = time.monotonic() + ANSWER_WITHIN_S
    while mark:
        # Looked for before the record is read: a shim that has ended has written it before.
        at_work = await asyncio.to_thread(shims, root, mark)
        record = exit_record(managed.folder, mark)
        numbers = [record.get(key) for key in ("pid", "started_ticks", "shim_pid", "shim_ticks")]
        if record.get("state") == "running" and all(isinstance(one, int) for one in numbers):
            pid, ticks, shim_pid, shim_ticks = (int(str(one)) for one in numbers)
            return Launched(pid, ticks, shim_pid, shim_ticks, degraded="")
        if not at_work or record.get("state") == "ended":
            return None
        if time.monotonic() > deadline:
            await asyncio.to_thread(kill_start, root, mark)
            return None
        await asyncio.sleep(0.02)
    return None


def _unknown_engines(supervisor: Supervisor) -> str:
    """Without a journal nobody knows what the engines are; name those of our folders."""
    pids = ", ".join(str(one.pid) for one in unknown_to(supervisor.root, supervisor.paths, set))
    return f"not known any more, but running: pid {pids}" if pids else "no engine runs"
