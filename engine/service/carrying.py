"""Brings a running instance's threads, memory policy and pages to a placement, slice by slice."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.errors import ControlError
from engine.host.affinity import pin_threads
from engine.host.cpuset_group import confine, set_nodes, widen
from engine.host.pages import Carried, carry_pages, shared_files
from engine.host.process import PAGE_BYTES, read_stat, thread_affinities
from engine.host.root import HostRoot
from engine.service.verification import members

_PAUSE_MOST_S = 0.02
_PASSES = 3
"""Pages that are made behind us while we go through are found by the next pass."""
_SETTLED = 0.01
_MANY_PAGES = 256


class Interrupted(Exception):
    """The instance ended, or was asked to stop: there is nothing left to carry."""


@dataclass(frozen=True, slots=True)
class Place:
    """PUs and NUMA nodes to bring an instance to, and those that it comes from."""

    pus: CpuSet
    nodes: NodeSet
    """Empty: its pages stay where they are."""
    was_pus: CpuSet
    was_nodes: NodeSet
    policy_too: bool = False
    """Its memory policy names nodes, and they change: by a cpuset of its own."""


@dataclass
class Report:
    """What was done, for words and for tests."""

    threads: int = 0
    outside: int = 0
    pages: int = 0
    looked: int = 0
    seconds: float = 0.0
    group: str = ""
    """The folder of its own control group, where it has one by now."""
    stayed: dict[tuple[str, str], int] = field(default_factory=dict)
    """Pages that are still elsewhere, by their kind and the reason."""

    def words(self) -> list[str]:
        """What moved and what stayed, each with its unit."""
        lines = [
            f"{_many(self.threads, 'thread')} and {_many(self.pages, 'page')} "
            f"({_mib(self.pages)}) moved in {self.seconds:.1f} s"
        ]
        if self.outside:
            lines.append(f"{_many(self.outside, 'thread')} went back: the engine pins them itself")
        for (kind, why), count in self.stayed.items():
            if kind == "own" or count >= _MANY_PAGES:  # every program maps a few small files
                what = "its own" if kind == "own" else "mapped files"
                lines.append(f"{_many(count, 'page')} ({_mib(count)}) of {what} stayed: {why}")
        return lines


@dataclass(frozen=True, slots=True)
class Cargo:
    """One running instance's processes."""

    root: HostRoot
    pid: int
    mark: str
    shim_pid: int

    def processes(self) -> tuple[int, ...]:
        return members(self.root, self.pid, self.mark)

    def shim(self) -> tuple[int, ...]:
        return (self.shim_pid,)


async def carry(
    cargo: Cargo,
    place: Place,
    report: Report,
    *,
    tell: Callable[[str], None],
    goes_on: Callable[[], bool],
    clock: Callable[[], float],
) -> None:
    """Bring it there; `report` tells how far it came, also where it ends early.

    Raises Interrupted when `goes_on` says no, OSError or ControlError where the kernel refuses.
    """
    started = clock()
    root = cargo.root

    def affinities() -> dict[int, CpuSet]:
        pairs = (thread_affinities(root, pid) for pid in (*cargo.processes(), cargo.shim_pid))
        return {thread: affinity for told in pairs for thread, affinity in told.items()}

    def target(thread: int, affinity: CpuSet) -> CpuSet:
        return counterpart(before.get(thread, affinity), place.was_pus, place.pus)

    try:
        before = await asyncio.to_thread(affinities)
        if place.policy_too:
            report.group = await asyncio.to_thread(confine, root, cargo.processes, cargo.mark[:12])
            await asyncio.to_thread(widen, root, report.group, place.nodes)
        pinned = await asyncio.to_thread(pin_threads, root, cargo.processes, place.pus, target)
        report.threads, report.outside = report.threads + pinned.threads, pinned.outside
        # Also who waits for its end: that has no work, but it holds PUs of the old slot.
        await asyncio.to_thread(pin_threads, root, cargo.shim, place.pus, target)
        if place.nodes:
            # By ourselves first, in slices: the kernel's own move is one long one.
            await _pages(cargo, place, report, tell=tell, goes_on=goes_on, clock=clock)
            if place.policy_too:
                await asyncio.to_thread(set_nodes, root, report.group, place.nodes)
                await _pages(cargo, place, report, tell=tell, goes_on=goes_on, clock=clock)
    finally:
        report.seconds += clock() - started


async def _pages(
    cargo: Cargo,
    place: Place,
    report: Report,
    *,
    tell: Callable[[str], None],
    goes_on: Callable[[], bool],
    clock: Callable[[], float],
) -> None:
    ways = dict(zip(place.was_nodes, _repeated(place), strict=False))
    for _ in range(_PASSES):
        processes = await asyncio.to_thread(cargo.processes)
        stats = [stat for pid in processes if (stat := read_stat(cargo.root, pid))]
        whole = sum(stat.rss_bytes for stat in stats)
        carried = Carried()
        shared = await asyncio.to_thread(shared_files, cargo.root, processes)
        for pid in processes:
            slices = carry_pages(cargo.root, pid, place.nodes, ways, carried, clock, shared)
            while True:
                if not goes_on():
                    raise Interrupted
                try:
                    took = await asyncio.to_thread(next, slices, None)
                except ProcessLookupError:
                    break
                if took is None:
                    break
                done = min(whole, carried.looked * PAGE_BYTES)
                tell(f"pages: {_mib(done // PAGE_BYTES)} of {_mib(whole // PAGE_BYTES)}")
                await asyncio.sleep(min(took, _PAUSE_MOST_S))
        report.pages += carried.moved
        report.looked, report.stayed = carried.looked, carried.stayed
        if carried.full:
            raise ControlError(
                what="Not all of its memory could be moved",
                why=f"NUMA node {place.nodes} has no room for more",
                do="Free memory there, or choose another slot",
            )
        if carried.moved <= carried.looked * _SETTLED:
            break


def _repeated(place: Place) -> list[int]:
    targets = list(place.nodes)
    return [targets[number % len(targets)] for number in range(len(place.was_nodes))]


def counterpart(affinity: CpuSet, was: CpuSet, to: CpuSet) -> CpuSet:
    """Where a thread goes: the k-th PU of the old slot becomes the k-th of the new one.

    One that may run anywhere in the old slot, or outside of it, may run anywhere in the new one.
    """
    if was == to:
        return (affinity & to) or to
    ways: Mapping[int, int] = dict(zip(was, to, strict=False))
    if affinity == was or not affinity <= was or not set(affinity) <= ways.keys():
        return to
    return CpuSet(ways[pu] for pu in affinity)


def _mib(pages: int) -> str:
    return f"{pages * PAGE_BYTES / (1 << 20):,.1f} MiB"


def _many(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"
