"""Which move can be live, so that the process goes on, and which is a restart, and why.

A move is live when all of this holds:

1. The instance is ready, and nothing but its slot changes.
2. It computes on CPUs: what a GPU holds cannot be carried over.
3. The new slot has as many PUs: its threads were counted when it was started.
4. No other process of ours is still there.
5. Its processes run as this user.
6. Where the NUMA nodes change: there is room for its pages, the kernel lets us move them, and what
   it allocates later follows. With the policy `local` that follows the threads; `bind` and
   `interleave` follow through a cpuset of its own, where we may make one; `preferred` never does.
"""

import os
import random
from collections.abc import Sequence

import msgspec

from engine.core.cpuset import NodeSet
from engine.core.placement import Placement
from engine.core.status import State
from engine.core.topology import Machine
from engine.host.cpuset_group import why_not_rebound
from engine.host.numa import process_policy
from engine.host.pages import residency
from engine.host.process import owner, read_stat
from engine.layout_files import rooted
from engine.service.managed import Managed
from engine.service.neighbours import free_memory
from engine.service.orders import Planned
from engine.service.supervisor import Supervisor
from engine.service.verification import members, nodes_of, same_policy

_PINS_ITSELF = {
    *("OMP_PLACES", "OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"),
    "VLLM_CPU_OMP_THREADS_BIND",
}
"""Variables by which an engine's runtime pins its threads one by one, read at its start only."""


def is_same(now: Managed, planned: Planned) -> bool:
    """Whether what runs is what is wished; reasons in words do not count."""
    wish, was, wanted = now.wish, now.placement, planned.placement
    if now.going is not None:
        wish, was = now.going.wish, now.going.placement
    return rooted(wish, now.base) == rooted(planned.wish, planned.base) and (
        was.pus,
        was.memory,
        was.gpus,
        was.port,
    ) == (wanted.pus, wanted.memory, wanted.gpus, wanted.port)


def ways_of(
    supervisor: Supervisor, moving: Sequence[Planned], machine: Machine, *, restart: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which of these moves are live, and for all of them how they are done and why so."""
    live: list[str] = []
    words: list[str] = []
    for planned in moving:
        managed = supervisor.managed[planned.wish.name]
        why = "as asked" if restart else why_restart(supervisor, managed, planned, machine)
        if why:
            words.append(f"{managed.name}: moves by a restart: {why}")
        else:
            live.append(managed.name)
            words.append(_live_words(managed, planned, machine))
    return tuple(live), tuple(words)


def why_restart(
    supervisor: Supervisor,
    managed: Managed,
    planned: Planned,
    machine: Machine,
) -> str:
    """Why the move cannot be live, in words; empty where it can. Changes nothing."""
    at, to = managed.at.placement, planned.placement
    if managed.launched is None or managed.life.state is not State.READY:
        return f"it is {managed.life.state}"
    if _beside_slot(managed, planned):
        return "more than its slot changes"
    if at.gpus or to.gpus:
        return "what a GPU holds cannot be carried over"
    if at.port != to.port:
        return f"its port changes from {at.port} to {to.port}"
    if len(at.pus) != len(to.pus) or len(at.reserved) != len(to.reserved):
        return f"its threads were made for {_pus(at)}, and the new slot has {_pus(to)}"
    if at.memory.policy != to.memory.policy:
        return f"its memory policy changes from {at.memory.policy} to {to.memory.policy}"
    for other in supervisor.managed.values():
        if other is not managed and other.occupies(to):
            return f"{other.name} is still there"
    return _why_not_carried(supervisor, managed, to, machine)


def _beside_slot(managed: Managed, planned: Planned) -> bool:
    now = rooted(managed.at.wish, managed.base)
    wish = msgspec.structs.replace(
        rooted(planned.wish, planned.base),
        slot=now.slot,
        count=now.count,
        cores=now.cores,
        gpus=now.gpus,
    )
    return wish != now


def _why_not_carried(
    supervisor: Supervisor, managed: Managed, to: Placement, machine: Machine
) -> str:
    """What of its processes, as they are just now, stands against it."""
    root, launched, memory = supervisor.root, managed.launched, managed.at.placement.memory
    assert launched is not None
    processes = members(root, launched.pid, managed.mark)
    us = os.geteuid()
    if us != 0 and any(owner(root, pid) not in (us, None) for pid in processes):
        return "processes of it run as another user"
    was, nodes = home_nodes(managed.at.placement, machine), home_nodes(to, machine)
    if was == nodes:
        return ""
    if launched.degraded:
        return f"it runs unbound ({launched.degraded})"
    chance = random.Random(0)
    if any(residency(root, pid, "own", chance=chance) is None for pid in processes):
        return (
            "the kernel does not let us move its pages (move_pages), as containers do by seccomp"
        )
    stats = [stat for pid in processes if (stat := read_stat(root, pid))]
    whole, free = sum(stat.rss_bytes for stat in stats), free_memory(root)
    room = sum(free.get(node, 0) for node in nodes)
    if whole > room:
        return f"NUMA node {nodes} has {room >> 20:,} MiB free, and it has {whole >> 20:,} MiB"
    if memory.policy == "local":
        return ""
    if memory.policy == "preferred":
        return f"what it allocates later would still come from NUMA node {was} (preferred)"
    if any(
        (got := process_policy(root, pid)) is None or not same_policy(got, memory.policy, was)
        for pid in processes
    ):
        return "its memory policy is not the one that was asked for"
    if why := why_not_rebound(root, launched.pid, was, nodes):
        return f"what it allocates later would still come from NUMA node {was}, because {why}"
    return ""


def _live_words(managed: Managed, planned: Planned, machine: Machine) -> str:
    """What a live move will do, for the offer."""
    to = planned.placement
    was, nodes = home_nodes(managed.at.placement, machine), home_nodes(to, machine)
    memory = f"its memory stays on NUMA node {nodes}"
    if was != nodes:
        memory = f"its pages move from NUMA node {was} to {nodes}, which slows it meanwhile"
        if to.memory.policy != "local":  # the kernel's part of it asks nobody
            memory += "; mapped files that other programs share move along"
    if len(to.pus) > 1 and _PINS_ITSELF & planned.command.env.keys():
        memory += (
            "; threads that its OpenMP runtime makes later may go back to PU "
            f"{managed.at.placement.pus}: `slotdeck verify --repair` finds and mends that"
        )
    return f"{managed.name}: moves live, requests go on: its threads go to PU {to.pus}, {memory}"


def home_nodes(placement: Placement, machine: Machine) -> NodeSet:
    """Where its pages are to be: with the policy `local`, where its PUs are."""
    return NodeSet.parse(placement.memory.nodes) or nodes_of(machine, placement.pus)


def _pus(placement: Placement) -> str:
    return "1 PU" if len(placement.pus) == 1 else f"{len(placement.pus)} PUs"
