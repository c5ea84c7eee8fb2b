"""Runs the programs that make an engine's environment: pip, Python, the compiler."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from engine.host.process import read_all
from engine.host.root import HostRoot

_NOT_PASSED_ON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "PIP_TARGET")
"""Variables that would lead an environment's Python or pip elsewhere."""
_TICK_S = 0.5
_END_WITHIN_S = 10.0

Tick = Callable[[], None]


def own_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The user's environment without what would lead another Python astray."""
    return {name: value for name, value in environment.items() if name not in _NOT_PASSED_ON}


def run_program(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    output: int,
    tick: Tick,
    failed: Callable[[], Exception],
    keep_open: tuple[int, ...] = (),
) -> None:
    """Run a program to its end, with `tick` called now and then; it ends with us."""
    program = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=dict(environment),
        cwd="/",
        pass_fds=keep_open,
        start_new_session=True,
    )
    try:
        while program.poll() is None:
            tick()
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(_TICK_S)
    except BaseException:
        _end(program)
        raise
    if program.returncode != 0:
        raise failed()


def _end(program: "subprocess.Popen[bytes]") -> None:
    """Its whole group: pip works in a child of its own, which would go on writing."""
    if program.returncode is not None:
        return
    group = program.pid
    with contextlib.suppress(ProcessLookupError):  # interrupted at the very end of its wait
        # Until it is waited for, its number cannot belong to anybody else.
        os.killpg(group, signal.SIGTERM)
        deadline = time.monotonic() + _END_WITHIN_S
        while _members(group) and time.monotonic() < deadline:
            time.sleep(0.02)
        while _members(group):
            os.killpg(group, signal.SIGKILL)
            time.sleep(0.02)
    program.wait()


def _members(group: int) -> bool:
    return any(one.group == group and one.alive for one in read_all(HostRoot()).values())
