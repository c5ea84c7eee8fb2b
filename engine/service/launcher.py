"""Starts one engine pinned: affinity and memory policy are set before anything is executed."""

import contextlib
import errno
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.core.command import Command
from engine.core.cpuset import CpuSet, NodeSet
from engine.core.errors import LaunchError
from engine.core.status import MemoryBinding
from engine.host.numa import memory_policy, set_memory_policy
from engine.host.process import read_stat
from engine.host.root import HostRoot
from engine.service.processes import FOLDER, MARK, SHIM_MARK, kill_start

SHIM = Path(__file__).with_name("shim.py")
ANSWER_WITHIN_S = 20.0
LOG_PIECE_BYTES = 8 << 20
"""Two pieces are kept, so a log holds 8 to 16 MiB."""

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


@dataclass(frozen=True, slots=True)
class Launched:
    """What was started, each identity by pid and start time."""

    pid: int
    started_ticks: int
    shim_pid: int
    shim_ticks: int
    degraded: str
    """What the kernel refused, in words; empty when all took."""


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of the user's environment that engines get."""
    return {
        name: value
        for name, value in environment.items()
        if name in INHERITED or name.startswith(("LC_", "XDG_"))
    }


def launch(order: LaunchOrder) -> Launched:
    """Start an engine; raises LaunchError with nothing left behind.

    Sets the affinity and policy of the *calling thread*, starts the shim, and restores them: a
    `preexec_fn` would fork this whole process, and a helper program would cost another exec.
    Call it on a thread of its own.
    """
    argv = _resolved(order)
    try:
        order.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(order, error, f"cannot make {order.folder}") from None
    affinity_before = os.sched_getaffinity(0)
    policy_before = _policy_or_none()
    try:
        degraded = _bind(order)
        shim = subprocess.Popen(
            [sys.executable, "-I", "-S", str(SHIM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            env={SHIM_MARK: order.mark},
            cwd="/",
        )
    except OSError as error:
        raise _refused(order, error, "the process could not be made") from None
    finally:
        with contextlib.suppress(OSError):  # the next launch binds this thread anew anyway
            os.sched_setaffinity(0, affinity_before)
        if policy_before is not None:
            with contextlib.suppress(OSError):
                set_memory_policy(*policy_before)
    return _answer(order, shim, _said(shim, pack_order(order, argv)), degraded)


def pack_order(order: LaunchOrder, argv: list[str]) -> bytes:
    """What the shim reads: fields ended by NUL, which no argument or variable can hold."""
    environment = {**order.command.plain_env(), MARK: order.mark, FOLDER: str(order.folder)}
    settings = [f"{name}={value}" for name, value in environment.items()]
    head = [str(order.folder), order.mark, str(LOG_PIECE_BYTES), str(len(argv))]
    return b"\0".join(os.fsencode(word) for word in (*head, *argv, *settings, "end"))


def _answer(
    order: LaunchOrder, shim: "subprocess.Popen[bytes]", said: str, degraded: str
) -> Launched:
    match said.split(" ", 2):
        case ["started", pid, ticks]:
            stat = read_stat(HostRoot(), shim.pid)
            # It outlives us; the supervisor collects it by its pid when it ends.
            shim.returncode = 0
            return Launched(
                pid=int(pid),
                started_ticks=int(ticks),
                shim_pid=shim.pid,
                shim_ticks=stat.started_ticks if stat else 0,
                degraded=degraded,
            )
        case ["error", code, text]:
            shim.wait()
            raise _refused(order, OSError(int(code), text), request_name(order))
        case _:
            pass
    shim.kill()
    # It may have started the engine just before.
    kill_start(HostRoot(), order.mark)
    shim.wait()
    raise LaunchError(
        what=f"Instance {order.name} was not started",
        why=f"its launcher said nothing within {ANSWER_WITHIN_S:g} s ({sys.executable})",
        do="The machine may be overloaded: try again",
    )


def _said(shim: "subprocess.Popen[bytes]", request: bytes) -> str:
    """Hand over the order and read the one line of answer; empty when there is none in time."""
    assert shim.stdin is not None
    assert shim.stdout is not None
    deadline = time.monotonic() + ANSWER_WITHIN_S
    answer = b""
    with shim.stdin, shim.stdout:
        inlet, outlet = shim.stdin.fileno(), shim.stdout.fileno()
        os.set_blocking(inlet, False)
        poll = select.poll()
        poll.register(inlet, select.POLLOUT)
        poll.register(outlet, select.POLLIN)
        while b"\n" not in answer and (left := deadline - time.monotonic()) > 0:
            for file, _ in poll.poll(left * 1000):
                if file == outlet:
                    if not (data := os.read(outlet, 8192)):
                        return ""
                    answer += data
                    continue
                with contextlib.suppress(BrokenPipeError, BlockingIOError):
                    request = request[os.write(inlet, request) :]
                    if request:
                        continue
                poll.unregister(inlet)
                shim.stdin.close()
    return answer.decode("utf-8", "replace").partition("\n")[0]


def request_name(order: LaunchOrder) -> str:
    """The program's name for messages."""
    return Path(order.command.argv[0]).name


def _bind(order: LaunchOrder) -> str:
    """Bind this thread, read back what took; returns what was refused but allowed to be."""
    try:
        os.sched_setaffinity(0, order.pus.pus)
    except OSError as error:
        raise OSError(error.errno, f"PU {order.pus}: {error.strerror}") from None
    got = CpuSet(os.sched_getaffinity(0))
    if got != order.pus:
        # A cpuset narrows an affinity silently.
        raise OSError(errno.EINVAL, f"asked for PU {order.pus}, the kernel gave {got}")
    nodes = NodeSet.parse(order.memory.nodes)
    if order.memory.policy == "local" and _policy_is_untouched():
        return ""
    try:
        set_memory_policy(order.memory.policy, nodes)
        policy, taken = memory_policy()
        if policy != order.memory.policy or (nodes and taken != nodes):
            raise OSError(
                errno.EINVAL, f"asked for {order.memory.policy}:{nodes}, got {policy}:{taken}"
            )
    except OSError as error:
        if order.allow_degraded:
            return f"memory {order.memory.policy} on {nodes} was refused: {error.strerror}"
        if error.errno == errno.EPERM:
            raise LaunchError(
                what=f"Instance {order.name} was not started",
                why="the kernel refuses the memory policy (set_mempolicy: Operation not "
                "permitted), as containers do by seccomp",
                do="Start the container with --cap-add SYS_NICE and --security-opt "
                'seccomp=unconfined, or write memory = "local" or allow_degraded = true',
            ) from None
        raise
    return ""


def _policy_is_untouched() -> bool:
    """Local is what a thread has unless somebody says otherwise; then no call is needed, and a
    container that refuses the call refuses nothing."""
    try:
        return memory_policy()[0] in ("default", "local")
    except OSError:
        return True


def _policy_or_none() -> tuple[str, NodeSet] | None:
    try:
        policy, nodes = memory_policy()
    except OSError:  # seccomp hides the call: then there is nothing to restore either
        return None
    return (policy, nodes) if not policy.startswith("policy ") else None


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
        case errno.EAGAIN | errno.ENOMEM:
            return "Too many processes or no memory left: stop something first"
        case _:
            return "Correct the slot or the limits (`slotdeck topo` shows what we may use)"
