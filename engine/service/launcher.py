"""Starts one engine pinned: affinity and memory policy are set before anything is executed."""

import contextlib
import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from engine.core.command import Command
from engine.core.cpuset import CpuSet, NodeSet
from engine.core.errors import LaunchError
from engine.core.layout import Instance
from engine.core.placement import Placement
from engine.core.status import MemoryBinding
from engine.host.cpuset_group import remove
from engine.host.limit_groups import limits_in_force
from engine.host.numa import memory_policy, policy_call, policy_named
from engine.host.root import HostRoot
from engine.service.limiting import Limiting, make_groups
from engine.service.nursery import Nursery
from engine.service.processes import FOLDER, MARK, kill_start
from engine.service.refusing import (
    SCORE_FILE,
    check_affinity,
    degraded_policy,
    refused,
    refused_score,
)
from engine.service.talk import ANSWER_WITHIN_S, Talk, packed

_MOST_EXPECTED = 16
LOG_PIECE_BYTES = 8 << 20
"""Two pieces are kept, so a log holds 8 to 16 MiB."""
OOM_SCORE = 300
"""An engine that runs out of memory should go before anything that watches it."""
_UNLIMITED = Limiting()

INHERITED = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
)
"""What an engine gets of the user's environment, beside LC_* and XDG_*; the rest is built."""


@dataclass(frozen=True, slots=True)
class LaunchOrder:
    """One engine to start."""

    name: str
    command: Command
    pus: CpuSet
    memory: MemoryBinding
    folder: Path
    """Holds its log and exit record; made if absent."""
    mark: str
    """Unique; put into its environment so that its processes can be found anywhere."""
    allow_degraded: bool
    limiting: Limiting = _UNLIMITED
    oom_score_adj: int | None = None
    """None: higher than that of anything that watches it."""
    core_dumps: bool = False

    @classmethod
    def of(
        cls,
        wish: Instance,
        placement: Placement,
        command: Command,
        folder: Path,
        mark: str,
        limiting: Limiting = _UNLIMITED,
    ) -> Self:
        """What a placed wish takes."""
        return cls(
            name=wish.name,
            command=command,
            pus=placement.pus,
            memory=placement.memory,
            folder=folder,
            mark=mark,
            allow_degraded=wish.allow_degraded,
            limiting=limiting,
            oom_score_adj=wish.oom_score_adj,
            core_dumps=wish.core_dumps,
        )


@dataclass(frozen=True, slots=True)
class Launched:
    """What was started, each identity by pid and start time."""

    pid: int
    started_ticks: int
    shim_pid: int
    shim_ticks: int
    degraded: str
    """The memory policy that the kernel refused, in words; empty when it took."""
    unlimited: str = ""
    """The limits that it does not have, in words; empty when it has all."""


@dataclass(frozen=True, slots=True)
class Relief:
    """A running engine whose shim has died."""

    folder: Path
    mark: str
    pus: CpuSet
    pid: int
    started_ticks: int
    pipe: int
    """The inode of its output."""
    log: int
    """The offset where its words begin."""


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of the user's environment that engines get."""
    return {
        name: value
        for name, value in environment.items()
        if name in INHERITED or name.startswith(("LC_", "XDG_"))
    }


class Launcher:
    """Starts engines, any number at a time.

    Behind it is the nursery, one small process that forks a shim per engine: a `preexec_fn` would
    fork this whole process, and an interpreter for each shim costs more than the rest of a start.
    """

    def __init__(self) -> None:
        self._nursery: Nursery | None = None
        self._lock = threading.Lock()
        # Of now: whoever makes a private file changes it for a moment, for all threads.
        self._umask = _umask()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def expect(self, starts: int) -> None:
        """Have all ready for so many, where that can be."""
        with self._lock, contextlib.suppress(OSError):
            self._opened().expect(min(starts, _MOST_EXPECTED))

    def dismiss(self) -> None:
        """Of what was expected nothing came."""
        with self._lock, contextlib.suppress(OSError):
            if self._nursery is not None:
                self._nursery.dismiss()

    def close(self) -> None:
        """End the nursery; shims stay with their engines."""
        with self._lock:
            self._shut()

    def launch(self, order: LaunchOrder) -> Launched:
        """Start an engine; raises LaunchError with nothing left behind."""
        try:
            with self.begin(order) as start:
                start.bound()
                start.go()
                return start.launched()
        except (OSError, LaunchError) as error:
            raise self.undone(order, error) from None

    def begin(self, order: LaunchOrder) -> "Start":
        """Have a shim make all ready for an engine. Raises LaunchError or OSError; for these, and
        for those of what follows, there is `undone`."""
        words = pack_order(order, _resolved(order))
        return Start(order, self.connect(), words)

    def undone(self, order: LaunchOrder, error: OSError | LaunchError) -> LaunchError:
        """Leave nothing of a start that went wrong; returns why it did."""
        root = HostRoot()
        if isinstance(error, OSError):
            kill_start(root, order.mark)
        for folder in order.limiting.folders:
            remove(root, folder)
        if isinstance(error, LaunchError):
            return error
        if not isinstance(error, TimeoutError):
            return refused(order.name, error, "the process could not be made")
        # It may have started the engine just before; whoever hangs is not asked again.
        self.close()
        return LaunchError(
            what=f"Instance {order.name} was not started",
            why=f"its launcher said nothing within {ANSWER_WITHIN_S:g} s ({sys.executable})",
            do="The machine may be overloaded: try again",
        )

    def relieve(self, relief: Relief) -> tuple[int, int]:
        """Put another shim to a running engine whose own has died; returns its pid and start time.

        Raises OSError where that cannot be.
        """
        with self.connect() as connection:
            talk = Talk(connection)
            talk.say(_pack_relief(relief))
            line = talk.line()
        if line[0] != "started":
            raise OSError(int(line[1]), line[2])
        return int(line[3]), int(line[4])

    def connect(self) -> socket.socket:
        """A connection to a new shim, which waits for its order. Raises OSError."""
        with self._lock:
            try:
                return self._opened().connect()
            except OSError:  # somebody has ended it meanwhile
                self._shut()
                return self._opened().connect()

    def _opened(self) -> Nursery:
        if self._nursery is None or not self._nursery.lives:
            self._shut()
            self._nursery = Nursery(self._umask)
        return self._nursery

    def _shut(self) -> None:
        if self._nursery is not None:
            self._nursery.close()
        self._nursery = None


def pack_order(order: LaunchOrder, argv: list[str]) -> bytes:
    """What the shim reads: its length, then fields ended by NUL, which no argument or variable
    can hold. Raises OSError."""
    environment = {**order.command.plain_env(), MARK: order.mark, FOLDER: str(order.folder)}
    score = OOM_SCORE if order.oom_score_adj is None else order.oom_score_adj
    lax = order.oom_score_adj is None or order.allow_degraded
    policy = ""
    if order.memory.policy != "local" or not _policy_is_untouched():
        policy = policy_call(order.memory.policy, NodeSet.parse(order.memory.nodes)).words()
    groups = [f"/{folder}/cgroup.procs" for folder in order.limiting.folders]
    return packed(
        *_head(order.folder, order.mark, order.pus, relief=""),
        *(policy, "core" if order.core_dumps else "", str(score), "may" if lax else "must"),
        *(str(len(groups)), *groups, str(len(argv)), *argv),
        *(f"{name}={value}" for name, value in environment.items()),
    )


def _pack_relief(relief: Relief) -> bytes:
    numbers = (relief.pid, relief.started_ticks, relief.pipe, relief.log)
    return packed(
        *_head(relief.folder, relief.mark, relief.pus, relief=" ".join(map(str, numbers)))
    )


def _head(folder: Path, mark: str, pus: CpuSet, *, relief: str) -> tuple[str, ...]:
    return str(folder), mark, str(LOG_PIECE_BYTES), ",".join(map(str, pus)), relief


class Start:
    """One engine on its way: `bound`, `go`, `launched`. Whoever must not be held up waits until
    there is something to read. Each raises LaunchError or OSError."""

    def __init__(self, order: LaunchOrder, connection: socket.socket, words: bytes) -> None:
        self._order = order
        self._connection = connection
        self._talk = Talk(connection)
        self._degraded = ""
        self._talk.say(words)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def fileno(self) -> int:
        return self._connection.fileno()

    def bound(self) -> None:
        """What the kernel made of the order; without a `go` nothing comes of it."""
        line = self._talk.line()
        if line[0] != "bound":
            raise _failure(self._order, line, "its log cannot be written")
        self._degraded = _judged(self._order, *line[1:])

    def go(self) -> None:
        """Have it executed, in the control groups of its limits."""
        try:
            make_groups(HostRoot(), self._order.limiting)
        except OSError as error:
            raise refused(self._order.name, error, "its limits cannot be set") from None
        self._talk.listen_anew()
        self._talk.say(b"go\n")

    def launched(self) -> Launched:
        order, line = self._order, self._talk.line()
        if line[0] != "started":
            raise _failure(order, line, Path(order.command.argv[0]).name)
        pid, ticks, shim_pid, shim_ticks = map(int, line[1:])
        unlimited = _unlimited(HostRoot(), order, pid)
        return Launched(pid, ticks, shim_pid, shim_ticks, self._degraded, unlimited)


def _failure(order: LaunchOrder, line: list[str], doing: str) -> LaunchError:
    if line[2].startswith(SCORE_FILE):
        return refused_score(order.name, order.oom_score_adj, int(line[1]))
    return refused(order.name, OSError(int(line[1]), line[2]), doing)


def _judged(order: LaunchOrder, affinity: str, pus: str, policy: str, mode: str, mask: str) -> str:
    """What was refused but allowed to be; raises LaunchError where it is not."""
    check_affinity(order.name, order.pus, int(affinity), CpuSet(map(int, pus.split(","))))
    got, taken = policy_named(int(mode), int(mask, 16))
    return degraded_policy(
        order.name, order.memory, int(policy), got, taken, allowed=order.allow_degraded
    )


def _unlimited(root: HostRoot, order: LaunchOrder, pid: int) -> str:
    """What it was to have and has not, read back."""
    told = [order.limiting.refused] if order.limiting.refused else []
    if order.limiting.groups and not limits_in_force(root, pid):
        told.append("it is not in the control group of its limits")
    score = root.text(f"proc/{pid}/oom_score_adj")
    if order.oom_score_adj is not None and score not in (None, str(order.oom_score_adj)):
        told.append(f"oom_score_adj = {order.oom_score_adj} was refused: it is {score}")
    return "; ".join(told)


def _policy_is_untouched() -> bool:
    """Local is what a process has unless somebody says otherwise; then no call is needed, and a
    container that refuses the call refuses nothing. The nursery has the policy that we have."""
    try:
        return memory_policy()[0] in ("default", "local")
    except OSError:
        return True


def _umask() -> int:
    """-1 where it is not told (Linux before 4.7): then a child has what we have then."""
    status = HostRoot().text("proc/self/status") or ""
    found = re.search(r"^Umask:\s*(\d+)$", status, re.MULTILINE)
    return int(found[1], 8) if found else -1


def _resolved(order: LaunchOrder) -> list[str]:
    program = order.command.argv[0]
    path = order.command.plain_env().get("PATH", os.defpath)
    found = shutil.which(program, path=path)
    if found is None:
        raise LaunchError(
            what=f"Instance {order.name} was not started",
            why=f"there is no program {program!r}",
            do="Correct the path, or install the engine",
        )
    return [str(Path(found).absolute()), *order.command.argv[1:]]
