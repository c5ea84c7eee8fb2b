"""Pinning threads that already run: all of a process family, and those that it makes meanwhile."""

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.core.cpuset import CpuSet
from engine.host.process import thread_affinities
from engine.host.root import HostRoot

_PASSES = 50


@dataclass(frozen=True, slots=True)
class Pinned:
    """What became of a family's threads."""

    threads: int
    """How many were given other PUs."""
    outside: int
    """How many were outside again each time that we looked: they pin themselves."""


def pin_threads(
    root: HostRoot,
    processes: Callable[[], Sequence[int]],
    inside: CpuSet,
    place: Callable[[int, CpuSet], CpuSet],
) -> Pinned:
    """Give every thread the PUs that `place` says of it and of where it may run now.

    Looks again until a pass finds nothing to do: a thread that is made meanwhile inherits from the
    one that made it, so it may be where that one was. One that is seen late and is inside stays.
    Raises OSError where the kernel refuses.
    """
    seen: set[int] = set()
    moved: set[int] = set()
    for number in range(_PASSES):
        outside = 0
        for pid in processes():
            for thread, affinity in thread_affinities(root, pid).items():
                known = thread in seen
                seen.add(thread)
                if affinity <= inside and (known or number):
                    continue
                wanted = place(thread, affinity)
                outside += not affinity <= inside
                if wanted != affinity:
                    with contextlib.suppress(ProcessLookupError):  # it has ended
                        os.sched_setaffinity(thread, wanted.pus)
                        moved.add(thread)
        if not outside and number:
            break
    return Pinned(len(moved), outside)
