"""Starts one engine pinned: affinity and memory policy are set before anything is executed."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from engine.service.processes import FOLDER, MARK, SHIM_MARK, kill_start
from engine.service.shim import MARK_BYTES

SHIM = Path(__file__).with_name("shim.py")
ANSWER_WITHIN_S = 20.0
_ENDS_WITHIN_S = 2.0
LOG_PIECE_BYTES = 8 << 20
"""Two pieces are kept, so a log holds 8 to 16 MiB."""
OOM_SCORE = 300
"""An engine that runs out of memory should go before anything that watches it."""
_SCORE_FILE = "/proc/self/oom_score_adj"
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


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of the user's environment that engines get."""
    return {
        name: value
        for name, value in environment.items()
        if name in INHERITED or name.startswith(("LC_", "XDG_"))
    }


class Launcher:
    """Starts engines, any number at a time, each from a thread of its own.

    Behind it is the nursery, one small process that forks a shim per engine: a `preexec_fn` would
    fork this whole process, and an interpreter for each shim costs more than the rest of a start.
    """

    def __init__(self) -> None:
        self._nursery: subprocess.Popen[bytes] | None = None
        self._door: socket.socket | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warm(self) -> None:
        """Have the nursery ready for the first start. Raises OSError."""
        with self._lock:
            self._open()

    def close(self) -> None:
        """End the nursery; shims stay with their engines."""
        with self._lock:
            self._shut()

    def launch(self, order: LaunchOrder) -> Launched:
        """Start an engine; raises LaunchError with nothing left behind."""
        argv = _resolved(order)
        try:
            order.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _refused(order, error, f"cannot make {order.folder}") from None
        root = HostRoot()
        try:
            try:
                make_groups(root, order.limiting)
            except OSError as error:
                raise _refused(order, error, "its limits cannot be set") from None
            launched = self._started(order, argv)
        except LaunchError:
            for folder in order.limiting.folders:
                remove(root, folder)
            raise
        return replace(launched, unlimited=_unlimited(root, order, launched.pid))

    def _started(self, order: LaunchOrder, argv: list[str]) -> Launched:
        try:
            packed = pack_order(order, argv)
            with self.connect() as connection:
                return _Talk(order, connection).held(packed)
        except TimeoutError:
            # It may have started the engine just before; whoever hangs is not asked again.
            kill_start(HostRoot(), order.mark)
            self.close()
        except OSError as error:
            kill_start(HostRoot(), order.mark)
            raise _refused(order, error, "the process could not be made") from None
        raise LaunchError(
            what=f"Instance {order.name} was not started",
            why=f"its launcher said nothing within {ANSWER_WITHIN_S:g} s ({sys.executable})",
            do="The machine may be overloaded: try again",
        )

    def connect(self) -> socket.socket:
        """A connection to a new shim, which waits for its order."""
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            try:
                socket.send_fds(self._open(), [b"."], [theirs.fileno()])
            except OSError:  # somebody has ended the nursery
                self._shut()
                socket.send_fds(self._open(), [b"."], [theirs.fileno()])
        return ours

    def _open(self) -> socket.socket:
        if self._door is not None and self._nursery is not None and self._nursery.poll() is None:
            return self._door
        self._shut()
        self._door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._nursery = subprocess.Popen(
                [sys.executable, "-I", "-S", str(SHIM)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={SHIM_MARK: "0" * MARK_BYTES},
                cwd="/",
            )
        return self._door

    def _shut(self) -> None:
        if self._door is not None:
            self._door.close()
        if self._nursery is not None:
            try:
                self._nursery.wait(_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._nursery.kill()
                self._nursery.wait()
        self._door = self._nursery = None


def pack_order(order: LaunchOrder, argv: list[str]) -> bytes:
    """What the shim reads: its length, then fields ended by NUL, which no argument or variable
    can hold. Raises OSError."""
    environment = {**order.command.plain_env(), MARK: order.mark, FOLDER: str(order.folder)}
    settings = [f"{name}={value}" for name, value in environment.items()]
    score = OOM_SCORE if order.oom_score_adj is None else order.oom_score_adj
    lax = order.oom_score_adj is None or order.allow_degraded
    files = [(_SCORE_FILE, str(score), "may" if lax else "must")]
    files += [(f"/{folder}/cgroup.procs", "0", "must") for folder in order.limiting.folders]
    policy = ""
    if order.memory.policy != "local" or not _policy_is_untouched():
        policy = policy_call(order.memory.policy, NodeSet.parse(order.memory.nodes)).words()
    head = [str(order.folder), order.mark, str(LOG_PIECE_BYTES)]
    head += [",".join(map(str, order.pus)), policy, "core" if order.core_dumps else ""]
    head += [str(len(files)), *(word for file in files for word in file), str(len(argv))]
    packed = b"\0".join(os.fsencode(word) for word in (*head, *argv, *settings, "end"))
    return b"%d\n%s" % (len(packed), packed)


class _Talk:
    """One start: the order, what the kernel made of it, and whether it may go on."""

    def __init__(self, order: LaunchOrder, connection: socket.socket) -> None:
        self._order = order
        self._connection = connection
        self._deadline = time.monotonic() + ANSWER_WITHIN_S
        self._said = b""

    def held(self, packed: bytes) -> Launched:
        """Raises LaunchError; OSError, TimeoutError too, where the shim does not answer."""
        self._in_time()
        self._connection.sendall(packed)
        bound = self._line()
        if bound[0] != "bound":
            raise self._failure(bound)
        degraded = self._judged(*bound)
        self._in_time()
        self._connection.sendall(b"go\n")
        started = self._line()
        if started[0] != "started":
            raise self._failure(started)
        pid, ticks, shim_pid, shim_ticks = map(int, started[1:])
        return Launched(pid, ticks, shim_pid, shim_ticks, degraded)

    def _in_time(self) -> None:
        self._connection.settimeout(max(0.001, self._deadline - time.monotonic()))

    def _line(self) -> list[str]:
        while b"\n" not in self._said:
            self._in_time()
            if not (data := self._connection.recv(8192)):
                raise OSError(errno.ECONNRESET, "somebody has ended its launcher")
            self._said += data
        line, _, self._said = self._said.partition(b"\n")
        text = line.decode("utf-8", "replace")
        return text.split(" ", 2) if text.startswith("error ") else text.split(" ")

    def _failure(self, line: list[str]) -> LaunchError:
        if line[2].startswith(_SCORE_FILE):
            return LaunchError(
                what=f"Instance {self._order.name} was not started",
                why=f"oom_score_adj = {self._order.oom_score_adj} was refused "
                f"({os.strerror(int(line[1]))}): to lower it takes CAP_SYS_RESOURCE",
                do=f"Write one that is not below slotdeck's own ({_own_score()}), or "
                "allow_degraded = true",
            )
        error = OSError(int(line[1]), line[2])
        return _refused(self._order, error, Path(self._order.command.argv[0]).name)

    def _judged(self, _: str, affinity: str, pus: str, policy: str, mode: str, mask: str) -> str:
        """What was refused but allowed to be; raises LaunchError where it is not."""
        order = self._order
        if int(affinity):
            error = OSError(int(affinity), f"PU {order.pus}: {os.strerror(int(affinity))}")
            raise _refused(order, error, "the process could not be made")
        got = CpuSet(map(int, pus.split(",")))
        if got != order.pus:
            # A cpuset narrows an affinity silently.
            error = OSError(errno.EINVAL, f"asked for PU {order.pus}, the kernel gave {got}")
            raise _refused(order, error, "the process could not be made")
        return self._judged_policy(int(policy), *policy_named(int(mode), int(mask, 16)))

    def _judged_policy(self, code: int, got: str, taken: NodeSet) -> str:
        order = self._order
        policy, nodes = order.memory.policy, NodeSet.parse(order.memory.nodes)
        why = os.strerror(code) if code else ""
        same = got == policy or (policy == "local" and got == "default")
        if not code and not (same and (not nodes or taken == nodes)):
            why = f"asked for {policy}:{nodes}, got {got}:{taken}"
        if not why:
            return ""
        if code == errno.EINVAL and policy == "weighted-interleave" and not _has_weights():
            why = "this kernel has no weighted interleave (Linux 6.9 is the first)"
        if order.allow_degraded:
            return f"memory {policy} on {nodes} was refused: {why}"
        if code == errno.EPERM:
            raise LaunchError(
                what=f"Instance {order.name} was not started",
                why="the kernel refuses the memory policy (set_mempolicy: Operation not "
                "permitted), as containers do by seccomp",
                do="Start the container with --cap-add SYS_NICE and --security-opt "
                'seccomp=unconfined, or write memory = "local" or allow_degraded = true',
            )
        error = OSError(code or errno.EINVAL, why)
        raise _refused(order, error, f"memory = {policy!r} on NUMA node {nodes}")


def _unlimited(root: HostRoot, order: LaunchOrder, pid: int) -> str:
    """What it was to have and has not, read back."""
    told = [order.limiting.refused] if order.limiting.refused else []
    if order.limiting.groups and not limits_in_force(root, pid):
        told.append("it is not in the control group of its limits")
    score = root.text(f"proc/{pid}/oom_score_adj")
    if order.oom_score_adj is not None and score not in (None, str(order.oom_score_adj)):
        told.append(f"oom_score_adj = {order.oom_score_adj} was refused: it is {score}")
    return "; ".join(told)


def _has_weights() -> bool:
    return bool(HostRoot().names("sys/kernel/mm/mempolicy/weighted_interleave"))


def _own_score() -> str:
    return HostRoot().text(_SCORE_FILE.lstrip("/")) or "0"


def _policy_is_untouched() -> bool:
    """Local is what a process has unless somebody says otherwise; then no call is needed, and a
    container that refuses the call refuses nothing. The nursery has the policy that we have."""
    try:
        return memory_policy()[0] in ("default", "local")
    except OSError:
        return True


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


def _refused(order: LaunchOrder, error: OSError, doing: str) -> LaunchError:
    return LaunchError(
        what=f"Instance {order.name} was not started",
        why=f"{doing}: {error.strerror or error}",
        do=_advice(error.errno or 0),
    )


def _advice(code: int) -> str:
    match code:
        case errno.ENOSPC | errno.EDQUOT:
            return "Free some disk space and start it again"
        case errno.ENOENT:
            return "Correct the path, or install the engine"
        case errno.EACCES | errno.EPERM:
            return "Check the permissions of the program and of the state folder"
        case errno.ECONNRESET | errno.EPIPE:
            return "Start it again"
        case errno.EAGAIN | errno.ENOMEM:
            return "Too many processes or no memory left: stop something first"
        case _:
            return "Correct the slot or the limits (`slotdeck topo` shows what we may use)"
