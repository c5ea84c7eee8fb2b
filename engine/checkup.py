"""The doctor's findings, as `slotdeck doctor --json` tells them here or on another host."""

import asyncio
import contextlib
import os
import shlex
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence

import msgspec

from engine.core.checks import SCHEMA, Check, Report
from engine.core.errors import ControlError
from engine.reach import Reach, without_reach

WITHIN_S = 120.0
HERE = (sys.executable, "-P", "-m", "engine.cli.main")


class NotChecked(ControlError):
    """The checks could not be run, or their answer not read."""


async def checkup(
    reach: Reach,
    environment: Mapping[str, str],
    *,
    here: Sequence[str] = HERE,
    within_s: float = WITHIN_S,
) -> tuple[Check, ...]:
    """Have all checks run on the machine where the service is. Raises NotChecked.

    In a process of its own: some checks wait for a device. It ends when this is cancelled.
    """
    argv = reach.argv("doctor --json") if reach.host else [*here, "doctor", "--json"]
    by_hand = ["ssh", reach.host, reach.slotdeck] if reach.host else ["slotdeck"]
    do = f"Run it by hand: `{shlex.join([*by_hand, 'doctor'])}`"
    what = f"The checks of {reach.host} were not run" if reach.host else "The checks were not run"
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env=without_reach(environment),
            start_new_session=True,
        )
    except OSError as error:
        raise NotChecked(what=what, why=error.strerror or str(error), do=do) from None
    try:
        async with asyncio.timeout(within_s):
            said, complained = await process.communicate()
    except TimeoutError:
        raise NotChecked(what=what, why=f"no answer within {within_s:g} s", do=do) from None
    finally:
        await _end(process)
    try:
        report = msgspec.json.decode(said, type=Report)
    except msgspec.DecodeError as error:
        why = _last_words(complained) or f"its answer cannot be read: {error}"
        raise NotChecked(what=what, why=why, do=do) from None
    if report.schema != SCHEMA:
        raise NotChecked(
            what=what, why=f"it answers {report.schema}, this panel reads {SCHEMA}", do=do
        )
    return report.checks


async def _end(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _last_words(complained: bytes) -> str:
    lines = complained.decode(errors="replace").splitlines()
    return "; ".join(" ".join(line.split()) for line in lines[-4:] if line.strip())
