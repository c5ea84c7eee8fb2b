"""Moving a running instance to another slot without a restart, and back to where it belongs.

The journal knows the new place when all is done. Whatever ends a move in the middle, the service's
own end too, leaves a difference that `verify` finds and a repair brings back.
"""

import asyncio
import contextlib
from dataclasses import replace

from engine.control import Verification, Verified
from engine.core.cpuset import NodeSet
from engine.core.errors import ControlError
from engine.core.placement import Placement
from engine.core.status import State
from engine.core.topology import Machine
from engine.host.cpuset_group import folder_for, why_not_rebound
from engine.host.machine import read_machine
from engine.host.numa import process_policy
from engine.service.carrying import Cargo, Interrupted, Place, Report, carry
from engine.service.journal import Running
from engine.service.live_moves import home_nodes
from engine.service.managed import Managed, known
from engine.service.orders import Planned
from engine.service.supervisor import Supervisor
from engine.service.verification import same_policy


def begin_move(supervisor: Supervisor, managed: Managed, planned: Planned) -> None:
    """Move it live, beside; `going` and its note tell how far that is."""
    managed.going = Running(planned.wish, planned.placement)
    managed.verified = None
    managed.note = f"moving to {planned.placement.slot}"
    supervisor.save()
    supervisor.changed.set()
    supervisor.run(_move(supervisor, managed, planned))


async def _move(supervisor: Supervisor, managed: Managed, planned: Planned) -> None:
    at, to, mark = managed.at, planned.placement, managed.mark
    report = Report(group=at.group)
    failed = ""
    try:
        async with managed.work:
            machine = await asyncio.to_thread(read_machine, supervisor.root)
            place = _place(at.placement, to, machine)
            await _announce(supervisor, managed, place)
            try:
                await _carry(supervisor, managed, place, report, f"moving to {to.slot}")
            except (OSError, ControlError) as error:
                failed = _reason(error)
                text = f"{managed.name}: moving to {to.slot} failed ({failed}): it goes back"
                supervisor.tell(text, "warning")
                await _bring_back(supervisor, managed, place, report)
            if not failed and managed.mark == mark and managed.running is not None:
                managed.wish, managed.placement, managed.base = planned.wish, to, planned.base
                managed.running = replace(managed.running, wish=planned.wish, placement=to)
    except Interrupted:
        return  # it ends; where it would have gone does not matter any more
    finally:
        managed.going = None
        supervisor.save()
        supervisor.changed.set()
    if not failed:
        supervisor.tell(f"{managed.name}: moved to {to.slot}: {'; '.join(report.words())}")
    await supervisor.verify(managed)
    if failed:
        told = f"not moved to {to.slot}: {failed}"
        managed.note = f"{told}; {managed.note}" if managed.note else told
        supervisor.changed.set()


async def _announce(supervisor: Supervisor, managed: Managed, place: Place) -> None:
    """The group that is to be made, in the journal before it is: else the end of an engine whose
    service was killed meanwhile would leave it behind, empty."""
    launched, running = managed.launched, managed.running
    if not place.policy_too or launched is None or running is None:
        return
    with contextlib.suppress(OSError):  # then it cannot be made either, and that is told there
        group = folder_for(supervisor.root, launched.pid, managed.mark[:12])
        managed.running = replace(running, group=group)
        supervisor.save()
        await supervisor.saved()


async def _carry(
    supervisor: Supervisor, managed: Managed, place: Place, report: Report, words: str
) -> None:
    launched, mark = managed.launched, managed.mark
    if launched is None:
        raise Interrupted

    def tell(progress: str) -> None:
        managed.note = f"{words}, {progress}"
        supervisor.changed.set()

    await carry(
        Cargo(supervisor.root, launched.pid, mark, launched.shim_pid),
        place,
        report,
        tell=tell,
        goes_on=lambda: managed.mark == mark and managed.life.state is State.READY,
        clock=supervisor.clock,
    )


async def _bring_back(
    supervisor: Supervisor, managed: Managed, place: Place, report: Report
) -> None:
    back = Place(
        pus=place.was_pus,
        nodes=place.was_nodes if place.nodes else NodeSet(),
        was_pus=place.pus,
        was_nodes=place.nodes,
        policy_too=place.policy_too and bool(report.group),
    )
    try:
        await _carry(supervisor, managed, back, report, "going back")
    except (OSError, ControlError) as error:
        # Whatever is elsewhere now, the next look at it tells.
        supervisor.tell(f"{managed.name}: going back failed: {_reason(error)}", "error")


async def verify_named(
    supervisor: Supervisor, names: tuple[str, ...], *, repair: bool
) -> Verification:
    """Look again at these instances, or at all that are ready."""
    chosen = [known(supervisor.managed, name) for name in names]
    for one in chosen:
        if one.life.state is not State.READY:
            raise ControlError(
                what=f"{one.name} cannot be verified",
                why=f"it is {one.life.state}: {one.life.why}",
                do="Only what is ready can be compared with what was asked",
            )
    every = [one for one in supervisor.managed.values() if one.life.state is State.READY]
    found = []
    for one in chosen or every:
        async with one.work:
            pass  # a move comes to its end first
        await supervisor.verify(one)
        words: tuple[str, ...] = ()
        if repair and one.differences:
            words = await _repair(supervisor, one)
            await supervisor.verify(one)
        if one.verified is not None:  # else it has ended meanwhile
            found.append(Verified(one.name, one.verified, one.differences, words))
    return Verification(tuple(found))


async def _repair(supervisor: Supervisor, managed: Managed) -> tuple[str, ...]:
    """Bring threads and pages back to where they were asked for; returns what was done."""
    at = managed.at
    report = Report(group=at.group)
    managed.going = at
    try:
        async with managed.work:
            place = await asyncio.to_thread(_home, supervisor, managed)
            await _announce(supervisor, managed, place)
            await _carry(supervisor, managed, place, report, "being repaired")
    except Interrupted:
        return ("it has ended meanwhile",)
    except (OSError, ControlError) as error:
        return (*report.words(), f"ended early: {_reason(error)}")
    finally:
        managed.going = None
        supervisor.save()
    supervisor.tell(f"{managed.name}: repaired: {'; '.join(report.words())}")
    return tuple(report.words())


def _home(supervisor: Supervisor, managed: Managed) -> Place:
    """Where it is said to be, wherever it has gone."""
    root, at, launched = supervisor.root, managed.at.placement, managed.launched
    machine = read_machine(root)
    nodes = home_nodes(at, machine)
    got = process_policy(root, launched.pid) if launched else None
    policy, _, text = (got or "").rpartition(":")
    policy_too = False
    if (
        launched
        and policy
        and policy == at.memory.policy
        and not same_policy(got or "", at.memory.policy, nodes)
    ):
        policy_too = not why_not_rebound(root, launched.pid, NodeSet.parse(text), nodes)
    everywhere = NodeSet(node.os_index for node in machine.numa_nodes)
    return Place(
        pus=at.pus,
        nodes=NodeSet() if everywhere <= nodes else nodes,
        was_pus=at.pus,
        was_nodes=NodeSet(),
        policy_too=policy_too,
    )


def _place(at: Placement, to: Placement, machine: Machine) -> Place:
    was, nodes = home_nodes(at, machine), home_nodes(to, machine)
    return Place(
        pus=to.pus,
        nodes=NodeSet() if was == nodes else nodes,
        was_pus=at.pus,
        was_nodes=was,
        policy_too=was != nodes and to.memory.policy != "local",
    )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return error.why if isinstance(error, ControlError) else str(error)
