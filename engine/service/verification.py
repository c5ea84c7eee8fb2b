"""Asked against got: threads, memory policy, pages, GPUs and the port of a running instance.

1. Every thread may run on PUs of its slot only. Engines may pin their own threads inside it.
2. Every process has the memory policy that was asked for.
3. Memory of its own lies on the asked NUMA nodes: all of it where it is bound or interleaved, most
   of it where the kernel may fall back (preferred, local).
4. So do most pages of data files that it has mapped; programs and libraries do not count, whose
   pages lie wherever they were first read.
5. A process has each GPU's render node open, and none keeps much memory of another GPU.
6. A process of its own listens on its port.
7. Its limits are in force.

What the kernel does not let us see is no difference, but for the policy: that must be seen.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.control import Difference
from engine.core.cpuset import CpuSet, NodeSet
from engine.core.placement import Placement
from engine.core.placing.memory_room import STRICT
from engine.core.strangers import GPU_BYTES
from engine.core.topology import Machine
from engine.host.gpu_holders import HeldGpu, held_gpus
from engine.host.limit_groups import limits_in_force, same_cores, same_memory
from engine.host.machine import read_machine
from engine.host.numa import process_policy
from engine.host.pages import File, Residency, parts, residency, shared_files
from engine.host.ports import listeners
from engine.host.process import (
    family,
    marked,
    open_files,
    read_all,
    read_stat,
    thread_affinities,
)
from engine.host.root import HostRoot
from engine.service.processes import MARK

_MOST = 0.1
"""The share that may lie elsewhere where the kernel may fall back, and of mapped files."""
_FILE_BYTES = 64 << 20
"""Mapped files below this are no weights."""
_SEEN = 0.005
"""A smaller share may be a handful of pages from before the first thread was bound."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one running instance was asked to be, and how to find its processes."""

    pid: int
    mark: str
    placement: Placement
    degraded: str = ""
    """The memory policy that the kernel refused when it was started, in words."""
    unlimited: str = ""
    """The limits that it was started without, in words."""

    @property
    def nodes(self) -> NodeSet:
        return NodeSet.parse(self.placement.memory.nodes)


def members(root: HostRoot, pid: int, mark: str) -> tuple[int, ...]:
    """All living processes of an instance, wherever they have gone."""
    processes = read_all(root)
    carriers = marked(root, processes, f"{MARK}={mark}") if mark else ()
    return family(processes, [pid, *carriers])


def differences(root: HostRoot, asked: Asked) -> tuple[Difference, ...]:
    """What of the placement did not take, or has changed since."""
    machine = read_machine(root)
    processes = members(root, asked.pid, asked.mark)
    repair = f"`slotdeck verify {asked.placement.instance} --repair`"
    return (
        *_threads(root, asked, processes, repair),
        *_policies(root, asked, processes),
        *_limits(root, asked),
        *_pages(root, machine, asked, processes, repair),
        *_files(root, machine, asked, processes),
    )


def summary(found: Sequence[Difference]) -> str:
    """The first difference, and how many there are beside it."""
    if len(found) < 2:
        return str(found[0]) if found else ""
    return f"{found[0]}; and {_many(len(found) - 1, 'more difference')}: see `slotdeck verify`"


def _threads(
    root: HostRoot, asked: Asked, processes: Sequence[int], repair: str
) -> Iterator[Difference]:
    slot = asked.placement.pus
    outside: dict[str, int] = {}
    for pid in processes:
        for affinity in thread_affinities(root, pid).values():
            if not affinity <= slot:
                outside[str(affinity)] = outside.get(str(affinity), 0) + 1
    for where, threads in outside.items():
        yield Difference(
            "affinity",
            f"PU {slot}",
            f"{_many(threads, 'thread')} may run on PU {where}",
            f"{repair} brings them back; if they leave again, the engine pins its threads "
            "itself: turn that off by its flags or variables",
        )


def _policies(root: HostRoot, asked: Asked, processes: Sequence[int]) -> Iterator[Difference]:
    memory = asked.placement.memory
    if memory.policy == "local":
        return
    wanted = f"{memory.policy}:{memory.nodes}"
    if asked.degraded:
        do = "Allow the call (in containers: --cap-add SYS_NICE) and start it again"
        yield Difference("memory policy", wanted, asked.degraded, do)
        return
    others: dict[str, int] = {}
    unseen = 0
    for pid in processes:
        got = process_policy(root, pid)
        if got is None:
            unseen += read_stat(root, pid) is not None
        elif not same_policy(got, memory.policy, asked.nodes):
            others[got] = others.get(got, 0) + 1
    for got, count in others.items():
        text = f"memory policy of {_many(count, 'process')} is {got}"
        do = "New memory comes from elsewhere until it is started again: only a process itself "
        do += "sets its policy"
        yield Difference("memory policy", wanted, text, do)
    if unseen:
        text = f"the kernel does not show the memory policy of {_many(unseen, 'process')}"
        yield Difference("memory policy", wanted, text, "Look as the user who runs it, or as root")


def _limits(root: HostRoot, asked: Asked) -> Iterator[Difference]:
    limits = asked.placement.limits
    words = " and ".join(limits.words())
    if asked.unlimited:
        do = "Make that possible and start it again, or leave the limit out"
        yield Difference("limits", words or "as the layout says", asked.unlimited, do)
        return
    if not limits or read_stat(root, asked.pid) is None:
        return
    got = limits_in_force(root, asked.pid)
    memory, cores = limits.memory_bytes, limits.cpu_cores
    memory_differs = memory is not None and not same_memory(got.memory_bytes, memory)
    cores_differ = cores is not None and not same_cores(got.cpu_cores, cores)
    if memory_differs or cores_differ:
        found = " and ".join(got.words()) or "no limit is in force"
        do = "Somebody has changed its control groups: start it again"
        yield Difference("limits", words, found, do)


def same_policy(got: str, policy: str, nodes: NodeSet) -> bool:
    """Whether numa_maps' word for a policy is the one asked for.

    It writes "bind:0-1", "bind=static:0", "prefer:0", "prefer (many):0-1" or "interleave:0-1".
    """
    name, _, text = got.rpartition(":")
    try:
        return name.startswith(policy[:6]) and NodeSet.parse(text) == nodes
    except ValueError:
        return False


def _pages(
    root: HostRoot, machine: Machine, asked: Asked, processes: Sequence[int], repair: str
) -> Iterator[Difference]:
    nodes = asked.nodes or nodes_of(machine, asked.placement.pus)
    everywhere = NodeSet(node.os_index for node in machine.numa_nodes)
    if not nodes or everywhere <= nodes:
        return
    chance = random.Random(0)  # the same question gets the same answer
    strict = asked.placement.memory.policy in STRICT
    where = f"NUMA node {nodes}"
    own = _together(root, processes, "own", chance)
    if own.away_from(nodes) > (_SEEN if strict else _MOST):
        got = f"{_away(own, nodes)} of its own memory"
        yield Difference("pages", where, got, f"{repair} moves them")
    files = _together(root, processes, "file", chance)
    if files.away_from(nodes) > _MOST and files.resident_bytes >= _FILE_BYTES:
        got = f"{_away(files, nodes)} of the files that it has mapped"
        yield Difference("file pages", where, got, _file_cure(root, processes, repair))


def _file_cure(root: HostRoot, processes: Sequence[int], repair: str) -> str:
    """Pages of a file are in memory once for all, where somebody first read it, whatever is bound
    later (the page cache)."""
    shared = shared_files(root, processes)
    sizes: Counter[File] = Counter()
    for part in (part for pid in processes for part in parts(root, pid, shared)):
        if part.kind == "shared" and part.file:
            sizes[part.file] += part.last - part.first
    large = [file for file, size in sizes.items() if size >= _FILE_BYTES]
    others = sorted({pid for file in large for pid in shared[file]})
    or_read = "let the engine read its weights instead of mapping them"
    if not others:
        return (
            f"{repair} moves them, because no other program has mapped these files; or {or_read}"
        )
    shown = [f"{stat.name} (pid {pid})" for pid in others if (stat := read_stat(root, pid))]
    names = ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
    return (
        f"Memory holds a file once for all programs, and {names} mapped the same: give each NUMA "
        f"node a copy of its own of the files; or {or_read}. {repair} moves only what no other "
        "program uses"
    )


def nodes_of(machine: Machine, pus: CpuSet) -> NodeSet:
    """The NUMA nodes that PUs belong to."""
    return NodeSet(node.os_index for node in machine.numa_nodes if node.cpus & pus)


def _together(
    root: HostRoot, processes: Sequence[int], kind: str, chance: random.Random
) -> Residency:
    """One sample of all processes, each counted by its size."""
    nodes: dict[int, int] = {}
    whole = 0
    for pid in processes:
        one = residency(root, pid, kind, chance=chance)
        if one is None or not one.nodes:
            continue
        hits = sum(one.nodes.values())
        whole += one.resident_bytes
        for node, pages in one.nodes.items():
            nodes[node] = nodes.get(node, 0) + one.resident_bytes * pages // hits
    return Residency(nodes, whole)


def _away(found: Residency, nodes: NodeSet) -> str:
    share = found.away_from(nodes)
    others = NodeSet(node for node in found.nodes if node not in nodes)
    mib = share * found.resident_bytes / (1 << 20)
    return f"NUMA node {others} has {share:.1%} (about {mib:,.0f} MiB)"


def _files(
    root: HostRoot, machine: Machine, asked: Asked, processes: Sequence[int]
) -> Iterator[Difference]:
    """GPUs and the port, both by what the processes have open."""
    sockets: set[str] = set()
    held: dict[int, list[HeldGpu]] = {}
    hidden = False
    for pid in processes:
        files = open_files(root, pid)
        if files is None:
            hidden = hidden or read_stat(root, pid) is not None
            continue
        sockets |= {target[8:-1] for target in files.values() if target.startswith("socket:[")}
        for gpu, one in held_gpus(root, pid, files, machine.gpus).items():
            held.setdefault(gpu, []).append(one)
    yield from _gpus(machine, asked, held, hidden=hidden)
    port = asked.placement.port
    listening = listeners(root).get(port, frozenset())
    if not hidden and not listening & sockets:
        got = "another program listens on it" if listening else "nobody listens on it"
        yield Difference(
            "port",
            f"port {port} of its own",
            got,
            f"Look at its log: `slotdeck logs {asked.placement.instance}`",
        )


def _gpus(
    machine: Machine, asked: Asked, held: dict[int, list[HeldGpu]], *, hidden: bool
) -> Iterator[Difference]:
    wanted = asked.placement.gpus
    nodes = {gpu.index: gpu.drm_render for gpu in machine.gpus}
    text = ", ".join(f"GPU {gpu} (/dev/dri/{nodes.get(gpu) or '?'})" for gpu in wanted) or "no GPU"
    for gpu in wanted:
        if not hidden and not any(one.render for one in held.get(gpu, ())):
            yield Difference(
                "GPU",
                text,
                f"none of its processes has opened GPU {gpu}",
                "Look at its log for what it computes on; `slotdeck doctor` tells whether this "
                "user may open the card",
            )
    for gpu, holders in held.items():
        sizes = [one.memory_bytes for one in holders if one.memory_bytes is not None]
        # Runtimes open every card once to see what there is, and keep a little of each.
        if gpu not in wanted and sum(sizes) >= GPU_BYTES:
            mib = sum(sizes) >> 20
            yield Difference(
                "GPU",
                text,
                f"it holds {mib:,} MiB of GPU {gpu}",
                "Its variables (ZE_AFFINITY_MASK) are overruled: look at its `env` and `args`",
            )


def _many(count: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"1 {noun}" if count == 1 else f"{count} {plural}"
