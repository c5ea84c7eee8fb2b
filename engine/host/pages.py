"""Where a process's pages are, and moving them: /proc/PID/maps, its pagemap, move_pages(2)."""

import errno
import os
import random
import re
from array import array
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from engine.core.cpuset import NodeSet
from engine.host.numa import move_pages
from engine.host.process import PAGE_BYTES
from engine.host.root import HostRoot

_MAPPING = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) ([rwxsp-]{4}) [0-9a-f]+ ([0-9a-f]+:[0-9a-f]+) ([0-9]+)[ ]*(.*)$",
    re.M,
)
_SHARED_MEMORY = re.compile(r"/(memfd:|dev/shm/|SYSV|dev/zero)")
_KERNELS = ("[vvar]", "[vdso]", "[vsyscall]", "[vvar_vclock]", "[uprobes]")
_PRESENT = 1 << 63
"""A bit of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap)."""
_WINDOW_PAGES = 8192
_HITS, _ROUNDS = 1000, 4
_HUGE_BYTES = 2 << 20
_SLICE_FIRST, _SLICE_LEAST, _SLICE_MOST = 512, 64, 8192
SLICE_S = 0.02
"""What one slice of a move may take: as long a thread waits that touches a page under way."""


File = tuple[str, str]
"""Its device and inode, as maps writes them."""


@dataclass(frozen=True, slots=True)
class Part:
    """One mapping of a process."""

    first: int
    last: int
    kind: str
    """own: memory of its own, shared memory included; file: data of a file, in the page cache;
    shared: the same, of one that other programs have mapped too; program: a file that is executed,
    or belongs to one that is."""
    file: File | None

    @property
    def pages(self) -> int:
        return (self.last - self.first) // PAGE_BYTES


def parts(root: HostRoot, pid: int, shared: Container[File] = frozenset()) -> tuple[Part, ...]:
    """Its mappings that can hold pages; empty where they are not ours to see.

    `shared`: files that other programs have mapped too, where that matters.
    """
    rows = [
        match.groups()
        for match in _MAPPING.finditer(root.text(f"proc/{pid}/maps") or "")
        if match.group(3)[:3] != "---" and match.group(6) not in _KERNELS
    ]
    programs = {(device, inode) for _, _, mode, device, inode, _ in rows if mode[2] == "x"}
    found = []
    for first, last, _, device, inode, name in rows:
        file = (device, inode)
        if inode == "0" or _SHARED_MEMORY.match(name):
            kind = "own"
        elif file in programs:
            kind = "program"
        else:
            kind = "shared" if file in shared else "file"
        whose = None if kind == "own" else file
        found.append(Part(int(first, 16), int(last, 16), kind, whose))
    return tuple(found)


def shared_files(root: HostRoot, ours: Collection[int]) -> dict[File, list[int]]:
    """The data files that processes of ours have mapped and others too, and which others, as far
    as we may see."""
    mapped = {part.file for pid in ours for part in parts(root, pid) if part.kind == "file"}
    found: dict[File, list[int]] = {}
    for name in root.names("proc"):
        if name.isdigit() and int(name) not in ours:
            for file in mapped & {part.file for part in parts(root, int(name))}:
                if file is not None:
                    found.setdefault(file, []).append(int(name))
    return found


@dataclass(frozen=True, slots=True)
class Residency:
    """A sample of where resident pages of one kind are."""

    nodes: Mapping[int, int]
    """Sampled pages by NUMA node."""
    resident_bytes: int
    """Of all pages of that kind, estimated from the sample."""

    def away_from(self, nodes: NodeSet) -> float:
        """The share that lies elsewhere; 0 where no page was found."""
        here = sum(pages for node, pages in self.nodes.items() if node in nodes)
        whole = sum(self.nodes.values())
        return 1 - here / whole if whole else 0.0


def residency(root: HostRoot, pid: int, kind: str, *, chance: random.Random) -> Residency | None:
    """About 1,000 resident pages of one kind, drawn at random and asked with move_pages(2), which
    holds no lock for long. None where the kernel does not let us ask."""
    of_kind = [part for part in parts(root, pid) if part.kind == kind]
    if not of_kind:
        return Residency({}, 0)
    sizes = [part.pages for part in of_kind]
    nodes: dict[int, int] = {}
    asked = hits = 0
    # Large parts are often mapped and hardly touched: drawn again until there is enough.
    while hits < _HITS and asked < _ROUNDS * _HITS:
        picked = chance.choices(of_kind, weights=sizes, k=_HITS)
        addresses = array(
            "Q", (part.first + chance.randrange(part.pages) * PAGE_BYTES for part in picked)
        )
        try:
            status = move_pages(pid, addresses, None)
        except OSError:
            return None
        asked += _HITS
        for node in status:
            if node >= 0:
                nodes[node] = nodes.get(node, 0) + 1
                hits += 1
    return Residency(nodes, int(sum(sizes) * hits / asked) * PAGE_BYTES)


@dataclass
class Carried:
    """How far a move of pages is."""

    looked: int = 0
    """Resident pages that were looked at."""
    moved: int = 0
    stayed: dict[tuple[str, str], int] = field(default_factory=dict)
    """Pages that are still elsewhere, by their kind and the reason."""
    full: bool = False
    """A node had no room: the rest would not move either."""


def carry_pages(
    root: HostRoot,
    pid: int,
    to: NodeSet,
    counterpart: Mapping[int, int],
    carried: Carried,
    clock: Callable[[], float],
    shared: Container[File] = frozenset(),
) -> Iterator[float]:
    """Move what lies outside of `to`, slice by slice, each small enough for `SLICE_S`.

    After each slice it tells the seconds that it took; nothing happens until the next is asked
    for. A page goes to its node's `counterpart`; pages of other nodes are spread over `to`. Of
    files that are `shared` with other programs, pages that those use stay. Raises OSError.
    """
    size = _SLICE_FIRST
    for kind in ("own", "file", "shared", "program"):
        waiting = array("Q")
        for addresses in _present(root, pid, kind, shared):
            waiting.extend(addresses)
            while cut := _cut(waiting, size):
                started = clock()
                _slice(pid, waiting[:cut], to, counterpart, carried, kind)
                waiting = waiting[cut:]
                took = clock() - started
                if took > SLICE_S:
                    size = max(_SLICE_LEAST, size // 2)
                elif took < SLICE_S / 3:
                    size = min(_SLICE_MOST, size * 2)
                yield took
                if carried.full:
                    return
        if waiting:
            started = clock()
            _slice(pid, waiting, to, counterpart, carried, kind)
            yield clock() - started


def _cut(pages: "array[int]", size: int) -> int:
    """So many pages or a few more: a huge page, which moves whole, belongs into one slice."""
    while size < len(pages) and pages[size] % _HUGE_BYTES:
        size += 1
    return size if size < len(pages) else 0


def _present(
    root: HostRoot, pid: int, kind: str, shared: Container[File]
) -> Iterator["array[int]"]:
    """Addresses of the pages that it has now; all of them where the page map is not ours to read.

    The kernel reads a page map by pieces of 2 MiB and holds no lock in between.
    """
    try:
        file = os.open(root.path / f"proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        file = -1
    try:
        for part in parts(root, pid, shared):
            if part.kind != kind:
                continue
            for first in range(part.first, part.last, _WINDOW_PAGES * PAGE_BYTES):
                last = min(part.last, first + _WINDOW_PAGES * PAGE_BYTES)
                every = range(first, last, PAGE_BYTES)
                if file < 0:
                    yield array("Q", every)
                    continue
                told = os.pread(file, len(every) * 8, first // PAGE_BYTES * 8)
                if told.strip(b"\0"):  # most of a large mapping may be one hole
                    entries = array("Q", told[: len(told) // 8 * 8])
                    pairs = zip(every, entries, strict=False)
                    yield array("Q", (page for page, entry in pairs if entry & _PRESENT))
    finally:
        if file >= 0:
            os.close(file)


def _slice(
    pid: int,
    addresses: "array[int]",
    to: NodeSet,
    counterpart: Mapping[int, int],
    carried: Carried,
    kind: str,
) -> None:
    away, nodes = _elsewhere(pid, addresses, to)
    carried.looked += len(addresses)
    if not away:
        return
    spread = list(to)
    targets = [
        counterpart.get(node, spread[page // PAGE_BYTES % len(spread)])
        for page, node in zip(away, nodes, strict=True)
    ]
    # Several processes of one engine may share its pages; what other programs use is not ours.
    everybodys = kind in ("own", "file") and os.geteuid() == 0
    status = _moved(pid, away, targets, everybodys=everybodys)
    # Of a huge page all but the first small one are told as busy, though all of it has moved.
    left, _ = _elsewhere(pid, away, to)
    carried.moved += len(away) - len(left)
    why = dict(zip(away, status, strict=True))
    for page in left:
        carried.full = carried.full or why[page] == -errno.ENOMEM
        if kind != "program":  # libraries, which everybody shares: small, and read once
            reason = _REASONS.get(-why[page], "the kernel refused it")
            if reason == _SEVERAL and kind == "shared":
                reason = "other programs have them mapped too"
            carried.stayed[kind, reason] = carried.stayed.get((kind, reason), 0) + 1


_SEVERAL = "several processes have them mapped, and only root (CAP_SYS_NICE) may move those"
_REASONS = {
    errno.EACCES: _SEVERAL,
    errno.EBUSY: "in use by the kernel or a device",
    errno.ENOMEM: "the node has no room",
}


def _moved(
    pid: int, pages: "array[int]", targets: Sequence[int], *, everybodys: bool
) -> "array[int]":
    try:
        return move_pages(pid, pages, targets, everybodys=everybodys)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            return array("i", [-errno.ENOMEM]) * len(pages)
        if not everybodys or error.errno != errno.EPERM:
            raise
    # Root, but without CAP_SYS_NICE, as in containers.
    return move_pages(pid, pages, targets)


def _elsewhere(pid: int, addresses: "array[int]", to: NodeSet) -> tuple["array[int]", list[int]]:
    """Those of the pages that lie outside of `to`, and on which node."""
    away, nodes = array("Q"), []
    for page, node in zip(addresses, move_pages(pid, addresses, None), strict=True):
        if node >= 0 and node not in to:
            away.append(page)
            nodes.append(node)
    return away, nodes
